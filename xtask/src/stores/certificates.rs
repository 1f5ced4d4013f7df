//! A certificate authority of our own and a certificate for 127.0.0.1, for tests of TLS.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::command::run;
use super::site::Site;

const DAYS: &str = "365";

/// All that openssl would take from the machine's own configuration.
const CONFIG: &str = "\
[req]
prompt = no
distinguished_name = name
[name]
CN = tenure test
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
subjectAltName = DNS:localhost, IP:127.0.0.1
";

/// The files, in PEM.
pub(super) struct Certificates {
    /// What a client must trust.
    pub authority: PathBuf,
    /// The server's certificate, for `localhost` and 127.0.0.1.
    pub certificate: PathBuf,
    /// The server's key.
    pub key: PathBuf,
}

impl Certificates {
    /// The certificates of a site.
    pub(super) fn of(site: &Site) -> Self {
        let folder = site.folder("tls");
        Self {
            authority: folder.join("ca.pem"),
            certificate: folder.join("server.pem"),
            key: folder.join("server.key"),
        }
    }

    /// Makes them if they aren't there.
    pub(super) fn make(site: &Site) -> Result<(), String> {
        let made = Self::of(site);
        if made.certificate.exists() {
            return Ok(());
        }
        let folder = site.folder("tls");
        site.make(&folder)?;
        let config = folder.join("openssl.cnf");
        fs::write(&config, CONFIG).map_err(|error| format!("{}: {error}", config.display()))?;
        let request = || {
            let mut command = Command::new("openssl");
            command.args(["req", "-nodes", "-newkey", "ec"]);
            command.args(["-pkeyopt", "ec_paramgen_curve:P-256", "-config"]).arg(&config);
            command
        };
        let mut authority = request();
        authority.args(["-x509", "-days", DAYS, "-extensions", "authority", "-keyout"]);
        run(authority.arg(folder.join("ca.key")).arg("-out").arg(&made.authority))?;
        let asked = folder.join("server.csr");
        run(request().arg("-keyout").arg(&made.key).arg("-out").arg(&asked))?;
        let mut signed = Command::new("openssl");
        signed.args(["x509", "-req", "-days", DAYS, "-CAcreateserial", "-extensions", "server"]);
        signed.arg("-extfile").arg(&config).arg("-in").arg(&asked).arg("-CA").arg(&made.authority);
        signed.arg("-CAkey").arg(folder.join("ca.key"));
        // Into its place at the end, so that an interrupted run begins anew.
        let part = folder.join("server.part");
        run(signed.arg("-out").arg(&part))?;
        fs::rename(&part, &made.certificate).map_err(|error| format!("{}: {error}", part.display()))
    }
}
