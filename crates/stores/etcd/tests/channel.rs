//! A store over a channel that the host has already, and goes on using.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use std::time::Duration;

use common::harness::Etcd;
use common::{Hand, block_on, config, draw, line, own_prefix, runtime};
use tenure_conformance::player::{Player, name, namespace};
use tenure_conformance::proxy::FaultProxy;
use tenure_core::ErrorKind;
use tenure_core::chance::Chance;
use tenure_core::store::{Prefix, Store};
use tenure_etcd::tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tenure_etcd::{EtcdConfig, EtcdStore};

fn open_on(channels: Vec<Channel>, config: EtcdConfig) -> Result<EtcdStore, tenure_core::Error> {
    block_on(EtcdStore::open_on(channels, config, Chance::seeded(draw())))
}

#[test]
fn a_host_and_its_sessions_share_one_connection_and_it_outlives_them() {
    let server = line("TENURE_TEST_ETCD");
    let proxy = FaultProxy::start(server.trim_start_matches("etcd://")).unwrap();
    let channel = {
        let _within = runtime().enter();
        Endpoint::from_shared(format!("http://{}", proxy.address())).unwrap().connect_lazy()
    };
    let (url, prefix) = own_prefix(&server);
    let host = Hand::over(channel.clone(), &prefix);
    let etcd = Etcd::single("channel");
    for round in 0..3 {
        let store = open_on(vec![channel.clone()], config(&url, &namespace())).unwrap();
        let store: std::sync::Arc<dyn Store> = std::sync::Arc::new(store);
        let mut hints = block_on(store.watch(&Prefix::all())).unwrap().unwrap();
        let player = Player::on(&etcd, "pod", std::sync::Arc::clone(&store));
        let mut held = player.acquire(&name("job"));
        let told = async { tokio::time::timeout(Duration::from_secs(10), hints.next()).await };
        block_on(told).unwrap().unwrap();
        player.keeps(&mut held);
        assert!(host.get(host.key(&namespace(), &name("job"), "held")).is_some(), "{round}");
        player.release(&held);
        block_on(store.close()).unwrap();
        let error = block_on(store.read(&[name("job")])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(host.get(host.key(&namespace(), &name("job"), "held")).is_none(), "{round}");
    }
    assert_eq!(proxy.count().connections, 1);
}

#[test]
fn the_next_channel_serves_when_one_leads_nowhere() {
    let server = line("TENURE_TEST_ETCD");
    let (url, _) = own_prefix(&server);
    let _within = runtime().enter();
    let to = |address: &str| Endpoint::from_shared(format!("http://{address}")).unwrap();
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let channels = vec![
        to(&nowhere.to_string()).connect_lazy(),
        to(server.trim_start_matches("etcd://")).connect_lazy(),
    ];
    open_on(channels, config(&url, &namespace())).unwrap();
    let error = open_on(Vec::new(), config(&url, &namespace())).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
}

#[test]
fn the_channel_encrypts_and_the_configuration_says_who_asks() {
    let url = line("TENURE_TEST_ETCD_TLS");
    let (url, _) = own_prefix(&url);
    let authority = std::fs::read(line("TENURE_TEST_CA")).unwrap();
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority));
    let config = config(&url, &namespace());
    let _within = runtime().enter();
    let endpoint = Endpoint::from_shared(format!("https://{}", config.endpoints[0])).unwrap();
    let channel = endpoint.tls_config(tls).unwrap().connect_lazy();
    let nobody = EtcdConfig::new(["etcd"]);
    let error = open_on(vec![channel.clone()], nobody).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    let store = open_on(vec![channel], config).unwrap();
    assert_eq!(block_on(store.read(&[name("job")])).unwrap().len(), 1);
}
