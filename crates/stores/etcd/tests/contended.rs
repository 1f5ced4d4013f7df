//! Contended rounds against the exact calls of HAMode.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use std::time::Duration;

use common::harness::Etcd;
use common::wire::{
    Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseGrantResponse, LeaseRequest,
    LeaseRevokeResponse, PutRequest, Request, RequestOp, TxnRequest, TxnResponse, path,
};
use common::{Hand, block_on, line};
use tenure_conformance::contended::{Contenders, Neighbour, ROUNDS_VARIABLE, race};
use tenure_conformance::player::namespace;

/// How many rounds are played unless somebody asks for more: each costs several commits.
const ROUNDS: u64 = 200;

/// One process of MaksIT.HAMode 1.0.6: a lease for each call, and up to two Txns.
struct Hamode<'h> {
    harness: &'h Etcd,
    hand: Hand,
}

impl Hamode<'_> {
    fn key(&self, name: &str) -> Vec<u8> {
        self.harness.entry(&namespace(), name).unwrap().into_bytes()
    }

    fn does(&self, compare: Compare, request: Request) -> bool {
        let success = vec![RequestOp::from(request)];
        let question = TxnRequest { compare: vec![compare], success, failure: Vec::new() };
        let answer: TxnResponse = block_on(self.hand.ask(path::TXN, question));
        answer.succeeded
    }
}

impl Neighbour for Hamode<'_> {
    fn acquire(&mut self, name: &str, holder: &str, ttl: Duration) -> bool {
        let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        let question = LeaseGrantRequest { ttl: i64::try_from(seconds.max(1)).unwrap() };
        let lease: LeaseGrantResponse = block_on(self.hand.ask(path::LEASE_GRANT, question));
        let (key, value) = (self.key(name), holder.as_bytes().to_vec());
        let put = PutRequest {
            key: key.clone(),
            value: value.clone(),
            lease: lease.id,
            ..PutRequest::default()
        };
        let done = self.does(Compare::created(key.clone(), 0), Request::Put(put.clone()))
            || self.does(Compare::says(key, value), Request::Put(put));
        if !done {
            let gone = LeaseRequest { id: lease.id };
            let _: LeaseRevokeResponse = block_on(self.hand.ask(path::LEASE_REVOKE, gone));
        }
        done
    }

    fn release(&mut self, name: &str, holder: &str) {
        let key = self.key(name);
        let delete = Request::Delete(DeleteRangeRequest { key: key.clone() });
        self.does(Compare::says(key, holder.as_bytes().to_vec()), delete);
    }

    fn holder(&mut self, name: &str) -> Option<String> {
        self.hand.get(self.key(name)).map(|key| String::from_utf8(key.value).unwrap())
    }
}

#[test]
fn contended_rounds_with_hamode_have_one_holder() {
    let harness = Etcd::shared("contended");
    let connect =
        || Hamode { harness: &harness, hand: Hand::on(&line("TENURE_TEST_ETCD"), "unused") };
    let mut contenders = Contenders::from_env();
    if std::env::var(ROUNDS_VARIABLE).is_err() {
        contenders.rounds = ROUNDS;
    }
    println!("{:?}", race(&harness, connect, contenders));
}
