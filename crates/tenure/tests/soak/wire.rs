//! The way from one process to the servers of its store: a proxy before each.

use tenure_conformance::proxy::{Fault, FaultProxy};

/// Proxies, and the URL that leads through them. SQLite has none.
pub(crate) struct Wire {
    pub url: String,
    proxies: Vec<FaultProxy>,
}

/// What passed so far.
#[derive(Clone, Copy, Default)]
pub(crate) struct Seen {
    /// Bytes.
    pub requests: u64,
    pub answers: u64,
    /// Connections that were made.
    pub connections: u64,
}

impl Wire {
    /// A way to the servers of `url`.
    pub(crate) fn to(url: &str) -> Self {
        let Some((before, file, after)) = kubeconfig(url) else {
            let (url, proxies) = proxied(url);
            return Self { url, proxies };
        };
        let (own, proxies) = proxied(&std::fs::read_to_string(file).unwrap());
        let copy = format!("{file}-{}", proxies[0].address().port());
        std::fs::write(&copy, own).unwrap();
        Self { url: format!("{before}{copy}{after}"), proxies }
    }

    pub(crate) fn fault(&self, fault: Fault) {
        self.proxies.iter().for_each(|proxy| proxy.set(fault));
    }

    pub(crate) fn seen(&self) -> Seen {
        let mut seen = Seen::default();
        for count in self.proxies.iter().map(FaultProxy::count) {
            seen.requests += count.requests.bytes;
            seen.answers += count.answers.bytes;
            seen.connections += count.connections;
        }
        seen
    }
}

/// The text with a proxy in the place of each address.
fn proxied(text: &str) -> (String, Vec<FaultProxy>) {
    let mut own = text.to_owned();
    let mut proxies = Vec::new();
    for address in addresses(text) {
        let proxy = FaultProxy::start(address.as_str()).unwrap();
        own = own.replace(&address, &proxy.address().to_string());
        proxies.push(proxy);
    }
    (own, proxies)
}

/// The file that says where a cluster is, with what stands before it in the URL and after it.
fn kubeconfig(url: &str) -> Option<(&str, &str, &str)> {
    let begin = url.find("kubeconfig=")? + "kubeconfig=".len();
    let end = url[begin..].find('&').map_or(url.len(), |end| begin + end);
    Some((&url[..begin], &url[begin..end], &url[end..]))
}

/// The addresses in a URL: servers for tests have ports of 127.0.0.1.
pub(crate) fn addresses(url: &str) -> Vec<String> {
    let found = url.match_indices("127.0.0.1:").map(|(at, host)| {
        let port = at + host.len();
        let end = url[port..].find(|c: char| !c.is_ascii_digit());
        url[at..end.map_or(url.len(), |end| port + end)].to_owned()
    });
    found.collect()
}
