//! Azurite 3.35 for Azure Blob Storage.

use std::fs;
use std::process::Command;

use super::ask::ask;
use super::command::run;
use super::install::{Package, program};
use super::server::{Process, Server};
use super::site::Site;

pub(super) struct Azure;

const PACKAGE: Package = Package::Npm {
    name: "azurite",
    version: "3.35.0",
    before: "2026-11-01",
    program: "azurite-blob",
};
/// The container that tests share, each below a prefix of its own.
const CONTAINER: &str = "tenure-tests";
/// The account that every Azurite has, and its key, which its documentation prints.
const ACCOUNT: &str = "devstoreaccount1";
const KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
/// Where it says how often it collects what nothing refers to; it has no option for it. That is
/// taken to be what kept it from answering for many seconds after a suite.
const CONSTANTS: &str = "../azurite/dist/src/blob/utils/constants";
/// Instead of ten minutes the longest time that a timer of Node's can have: 24 days.
const GC_MS: i32 = i32::MAX;
/// Makes the container: a request signed with the account's key.
const MAKE: &str = r#"
const [port, account, key, container] = process.argv.slice(1);
const date = new Date().toUTCString();
const headers = `x-ms-date:${date}\nx-ms-version:2021-08-06\n`;
const resource = `/${account}/${account}/${container}\nrestype:container`;
const text = `PUT\n\n\n\n\n\n\n\n\n\n\n\n${headers}${resource}`;
const sign = require('crypto').createHmac('sha256', Buffer.from(key, 'base64'));
const signature = sign.update(text, 'utf8').digest('base64');
const request = require('http').request({
    host: '127.0.0.1', port, method: 'PUT', path: `/${account}/${container}?restype=container`,
    headers: { 'x-ms-date': date, 'x-ms-version': '2021-08-06', 'content-length': 0,
        authorization: `SharedKey ${account}:${signature}` },
}, (answer) => {
    answer.resume();
    answer.on('end', () => {
        if ([201, 409].includes(answer.statusCode)) process.exit(0);
        console.error(`it answers ${answer.statusCode}`);
        process.exit(1);
    });
});
request.on('error', (error) => { console.error(error.message); process.exit(1); });
request.end();
"#;

impl Server for Azure {
    fn name(&self) -> &'static str {
        "azure"
    }

    fn packages(&self) -> &'static [Package] {
        &[PACKAGE]
    }

    fn ports(&self) -> usize {
        1
    }

    fn lay_out(&self, site: &Site) -> Result<Vec<Process>, String> {
        let port = site.port(self.name(), 0);
        let program = PACKAGE.program(site.cache())?;
        let constants = program.with_file_name(CONSTANTS);
        let mut process = Process::new(site, self.name(), program, port);
        site.make(&process.data)?;
        let before = site.folder(self.name()).join("before.js");
        let text =
            format!("require('{}').DEFAULT_GC_INTERVAL_MS = {GC_MS};\n", constants.display());
        fs::write(&before, text).map_err(|error| format!("{}: {error}", before.display()))?;
        process.env = vec![("NODE_OPTIONS", format!("--require={}", before.display()))];
        let args = ["--silent", "--skipApiVersionCheck", "--disableTelemetry"];
        let port = port.to_string();
        Ok(vec![process.with_args(args).with_args([
            "--inMemoryPersistence",
            "--blobHost",
            "127.0.0.1",
            "--blobPort",
            &port,
        ])])
    }

    /// Whoever asks makes the container; it may be there already.
    fn answers(&self, site: &Site) -> Result<(), String> {
        let port = site.port(self.name(), 0);
        ask(port, "GET / HTTP/1.0\r\n\r\n")?;
        let port = port.to_string();
        let mut make = Command::new(program("node")?);
        make.args(["-e", MAKE, &port, ACCOUNT, KEY, CONTAINER]);
        run(&mut make).map(drop)
    }

    fn lines(&self, site: &Site) -> Vec<(&'static str, String)> {
        let address = site.address(self.name(), 0);
        let endpoint = format!("http://{address}/{ACCOUNT}");
        let url = format!("az://{CONTAINER}?account={ACCOUNT}&endpoint={endpoint}");
        vec![("TENURE_TEST_AZURE", url), ("AZURE_STORAGE_ACCOUNT_KEY", KEY.to_owned())]
    }
}
