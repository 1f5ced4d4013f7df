//! What is said when a store can't be opened, or stops being one: by kind, with the way out.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use common::{Home, chance, name, run};
use http::Method;
use serde_json::json;
use tenure_core::identity::Namespace;
use tenure_core::store::{InitOptions, Store, StoreAdmin, Verdict};
use tenure_core::{Error, ErrorKind};
use tenure_kubernetes::{KubernetesAdmin, KubernetesConfig, KubernetesStore};

use ErrorKind::{Denied, Misconfigured, Unavailable};

fn try_open(url: &str) -> Result<KubernetesStore, Error> {
    run(KubernetesStore::open(KubernetesConfig::from_url(url).unwrap(), chance()))
}

#[track_caller]
fn says<T>(outcome: Result<T, Error>, kind: ErrorKind, words: &[&str]) {
    let error = outcome.map(drop).expect_err("it should have failed");
    let said = error.to_string();
    assert_eq!(error.kind(), kind, "{error:?}");
    for word in words {
        assert!(said.contains(word), "`{word}` is missing in: {said}");
    }
}

#[test]
fn a_store_that_cannot_be_opened_says_what_to_do() {
    let home = Home::new();
    let url = home.url(None);
    let file = url.split_once("kubeconfig=").unwrap().1;
    let text = std::fs::read_to_string(file).unwrap();
    let changed = |from: &str, to: &str| {
        assert!(text.contains(from), "{text}");
        let path = home.folder.join("changed");
        std::fs::write(&path, text.replace(from, to)).unwrap();
        format!("kubernetes://?kubeconfig={}", path.display())
    };
    says(try_open("kubernetes://?kubeconfig=/no/such"), Misconfigured, &["/no/such"]);
    says(try_open(&format!("{url}&context=other")), Misconfigured, &["context `other`"]);
    let address = common::address_of(&url);
    says(try_open(&changed(&address, "127.0.0.1:1")), Unavailable, &["can't be reached"]);
    let authority = std::env::var("TENURE_TEST_CA").unwrap();
    let trusting = format!("certificate-authority: \"{authority}\"");
    let system = changed(&trusting, "certificate-authority-data: \"\"");
    assert!(try_open(&system).is_err(), "an authority of nobody's was trusted");
    let token = home.folder.join("token");
    std::fs::write(&token, "nobody's").unwrap();
    says(try_open(&url), Denied, &["credentials"]);
    home.write_token();
    // The account's Role is for its own namespace alone.
    let elsewhere = url.replace("kubernetes://", "kubernetes://kube-system");
    says(try_open(&elsewhere), Denied, &["kube-system", "init --print"]);
    let nowhere = common::variable().replace("//default", "//no-such-namespace");
    says(try_open(&nowhere), Misconfigured, &["no-such-namespace", "kubectl create namespace"]);
    drop(try_open(&url).unwrap());
}

#[test]
fn a_role_that_lacks_a_verb_is_told_by_doctor_and_by_the_request() {
    let home = Home::new();
    let store = home.open(&Namespace::default());
    let role = format!(
        "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles/tenure",
        home.kube_namespace
    );
    let rules = json!({ "rules": [{
        "apiGroups": ["coordination.k8s.io"], "resources": ["leases"],
        "verbs": ["get", "list", "create"],
    }] });
    home.ask(Method::PATCH, &role, &rules).unwrap();
    let config = home.config(&home.url(None), &Namespace::default());
    let admin = KubernetesAdmin::new(config, chance());
    let found = common::until(|| {
        let found = run(admin.diagnose()).unwrap();
        let permissions = found.into_iter().find(|finding| finding.check == "permissions")?;
        (permissions.verdict == Verdict::Bad).then_some(permissions)
    });
    assert!(found.detail.contains("lacks watch, patch"), "{}", found.detail);
    says(run(store.watch(&tenure_core::store::Prefix::all())), Denied, &["watch"]);
}

#[test]
fn a_mark_is_given_once_and_asked_for() {
    let home = Home::new();
    let url = home.url(None);
    let admin =
        |url: &str| KubernetesAdmin::new(KubernetesConfig::from_url(url).unwrap(), chance());
    says(try_open(&format!("{url}&cluster=prod")), Misconfigured, &["no mark"]);
    let mut options = InitOptions::default();
    options.cluster = Some("prod".to_owned());
    let id = run(admin(&url).init(&options)).unwrap();
    assert_eq!(run(admin(&url).init(&options)).unwrap(), id);
    let store = try_open(&format!("{url}&cluster=prod")).unwrap();
    assert!(run(store.read(&[name("job")])).unwrap()[0].is_none());
    says(try_open(&format!("{url}&cluster=test")), Misconfigured, &["`prod`"]);
    options.cluster = Some("test".to_owned());
    says(run(admin(&url).init(&options)), Misconfigured, &["another mark"]);
}

#[test]
fn a_closed_store_says_so() {
    let home = Home::new();
    let store = home.open(&Namespace::default());
    run(store.close()).unwrap();
    says(run(store.read(&[name("job")])), Unavailable, &["closed"]);
    says(run(store.watch(&tenure_core::store::Prefix::all())), Unavailable, &["closed"]);
}

#[test]
fn doctor_finds_a_server_that_will_do() {
    let home = Home::new();
    let config = home.config(&home.url(None), &Namespace::default());
    let found = run(KubernetesAdmin::new(config, chance()).diagnose()).unwrap();
    for check in ["durability", "clock", "permissions", "neighbours"] {
        let finding = found.iter().find(|finding| finding.check == check).unwrap();
        assert_eq!(finding.verdict, Verdict::Good, "{finding:?}");
    }
    assert!(found[0].detail.contains("v1."), "{:?}", found[0]);
}
