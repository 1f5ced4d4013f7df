//! etcd: a bare put of one key under a lease, over one connection; etcd's own lock service.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use http::uri::PathAndQuery;
use prost::Message;
use tenure::Session;
use tonic::Request;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use crate::beside::{self, Peer, Raw};
use crate::idle::idle;
use crate::measure::Report;

/// In seconds: longer than anything here takes.
const TTL: i64 = 300;
/// How many writes a transaction may have, by etcd's default.
const OPERATIONS_MAX: usize = 128;

#[derive(Clone, PartialEq, Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
    #[prost(int64, tag = "3")]
    lease: i64,
}

#[derive(Clone, PartialEq, Message)]
struct RequestOp {
    #[prost(message, optional, tag = "2")]
    put: Option<PutRequest>,
}

#[derive(Clone, PartialEq, Message)]
struct TxnRequest {
    #[prost(message, repeated, tag = "2")]
    success: Vec<RequestOp>,
}

#[derive(Clone, PartialEq, Message)]
struct LeaseGrantRequest {
    #[prost(int64, tag = "1")]
    ttl: i64,
}

#[derive(Clone, PartialEq, Message)]
struct LeaseGrantResponse {
    #[prost(int64, tag = "2")]
    id: i64,
}

#[derive(Clone, PartialEq, Message)]
struct LockRequest {
    #[prost(bytes = "vec", tag = "1")]
    name: Vec<u8>,
    #[prost(int64, tag = "2")]
    lease: i64,
}

#[derive(Clone, PartialEq, Message)]
struct LockResponse {
    #[prost(bytes = "vec", tag = "2")]
    key: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct UnlockRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
}

/// Of an answer that nothing is read from.
#[derive(Clone, PartialEq, Message)]
struct Done {}

/// A connection, and a lease of etcd's for all that is written.
struct Keys {
    channel: Channel,
    lease: i64,
}

impl Keys {
    async fn open(url: &str) -> Result<Self> {
        let address = url.trim_start_matches("etcd://").trim_end_matches('/');
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?.tcp_nodelay(true);
        let mut keys = Self { channel: endpoint.connect().await.context("connecting")?, lease: 0 };
        let granted: LeaseGrantResponse =
            keys.ask("/etcdserverpb.Lease/LeaseGrant", LeaseGrantRequest { ttl: TTL }).await?;
        keys.lease = granted.id;
        Ok(keys)
    }

    async fn ask<Q, A>(&self, path: &'static str, question: Q) -> Result<A>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut grpc = Grpc::new(self.channel.clone());
        grpc.ready().await?;
        let path = PathAndQuery::from_static(path);
        let answer =
            grpc.unary(Request::new(question), path, ProstCodec::<Q, A>::default()).await?;
        Ok(answer.into_inner())
    }

    fn put(&self, n: usize) -> PutRequest {
        PutRequest {
            key: format!("raw-{n}").into_bytes(),
            value: vec![b'x'; 300],
            lease: self.lease,
        }
    }
}

impl Raw for Keys {
    async fn write(&self, task: usize) -> Result<()> {
        self.ask::<_, Done>("/etcdserverpb.KV/Put", self.put(task)).await?;
        Ok(())
    }

    async fn write_many(&self, many: usize) -> Result<()> {
        for from in (0..many).step_by(OPERATIONS_MAX) {
            let until = many.min(from + OPERATIONS_MAX);
            let success = (from..until).map(|n| RequestOp { put: Some(self.put(n)) }).collect();
            self.ask::<_, Done>("/etcdserverpb.KV/Txn", TxnRequest { success }).await?;
        }
        Ok(())
    }
}

impl Peer for Keys {
    async fn pair(&self, task: usize) -> Result<()> {
        let name = format!("lock-{task}").into_bytes();
        let request = LockRequest { name, lease: self.lease };
        let locked: LockResponse = self.ask("/v3lockpb.Lock/Lock", request).await?;
        let request = UnlockRequest { key: locked.key };
        self.ask::<_, Done>("/v3lockpb.Lock/Unlock", request).await?;
        Ok(())
    }
}

pub(crate) async fn bench(report: &mut Report, url: &str, turns: usize) -> Result<()> {
    let ours = format!("{}/?namespace=bench", url.trim_end_matches('/'));
    let mut chance = tenure::chance_of_system()?;
    tenure::connect::admin(&ours, &mut chance).await?.init(&Default::default()).await?;
    let session = Session::open(ours.as_str()).await?;
    let raw = Arc::new(Keys::open(url).await?);
    report.heading("etcd", "a put of one key under a lease, over one connection");
    beside::single(report, "etcd", &session, &raw, turns).await?;
    beside::beats(report, "etcd", &session, &raw).await?;
    report.heading("etcd", "its own lock service, with a lease that is there");
    beside::peer(report, "etcd: its lock service", &session, &raw, turns).await?;
    let waiter = Session::open(ours.as_str()).await?;
    beside::wakes(report, &session, &waiter).await?;
    waiter.close().await?;
    session.close().await?;
    idle(&ours, 100).await
}
