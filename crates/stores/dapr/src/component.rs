//! Which component it is, and what a lease may expect of it.

use tenure_core::store::Level;
use tenure_core::{Error, ErrorKind, Operation};

use crate::config::DaprConfig;
use crate::sidecar::{Component, Metadata};

/// The components that the suite has run on.
const PROVEN: [&str; 3] = ["state.redis", "state.postgresql", "state.sqlite"];
/// Components that tell etags which prove nothing, and why.
const UNSAFE: [(&str, &str); 1] = [(
    "state.etcd",
    "it compares an etag and then writes whatever came of that, so two writers can both win; \
     open etcd itself: `etcd://HOST:2379`",
)];

/// What the sidecar says of the state store.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) component: Component,
    /// The application whose id stands before all keys, unless the component says otherwise.
    pub(crate) application: String,
    pub(crate) runtime: String,
    pub(crate) proven: bool,
}

/// Which kinds of component will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kinds {
    /// Those that the suite has run on, and one that the configuration accepts.
    Accepted,
    /// All that compare etags: to try what they are worth.
    Any,
}

/// Finds the component of a configuration.
///
/// # Errors
/// `Misconfigured`: there is none of that name, or no lease can be had on its kind.
pub(crate) fn find(config: &DaprConfig, metadata: Metadata, kinds: Kinds) -> Result<Found, Error> {
    let misfit = |message: String| Error::new(ErrorKind::Misconfigured, Operation::Open, message);
    let wanted = &config.component;
    let is_state = |component: &&Component| component.kind.starts_with("state.");
    let all: Vec<&Component> = metadata.components.iter().filter(is_state).collect();
    let Some(component) = all.iter().find(|component| component.name == *wanted) else {
        let known: Vec<&str> = all.iter().map(|component| component.name.as_str()).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        return Err(misfit(format!(
            "the sidecar has no state store `{wanted}`; it has {known}. Add the component, or name \
             another: `dapr:COMPONENT`"
        )));
    };
    let kind = component.kind.as_str();
    if let Some((_, why)) = UNSAFE.iter().find(|(unsafe_kind, _)| *unsafe_kind == kind) {
        return Err(misfit(format!("`{wanted}` is a {kind}: {why}")));
    }
    if !component.capabilities.iter().any(|capability| capability == "ETAG") {
        return Err(misfit(format!(
            "`{wanted}` is a {kind}, which compares no etags, so no lease can be had there; use \
             one of {}",
            PROVEN.join(", ")
        )));
    }
    let proven = PROVEN.contains(&kind);
    if !proven && kinds == Kinds::Accepted && config.accept.as_deref() != Some(kind) {
        return Err(misfit(format!(
            "`{wanted}` is a {kind}, on which tenure's suite hasn't run; `tenure doctor` tries it, \
             and `?accept={kind}` uses it all the same"
        )));
    }
    Ok(Found {
        component: (*component).clone(),
        application: metadata.id,
        runtime: metadata.runtime,
        proven,
    })
}

impl Found {
    /// Whether a write with an etag makes a key that isn't there, as Redis's component does.
    pub(crate) fn makes_missing_keys(&self) -> bool {
        !matches!(self.component.kind.as_str(), "state.postgresql" | "state.sqlite")
    }

    /// What may be relied on. A sidecar tells what kind its store is, not how it is run.
    pub(crate) fn level(&self) -> (Level, Option<&'static str>) {
        match self.component.kind.as_str() {
            "state.postgresql" | "state.sqlite" => (
                Level::Lease,
                Some("a sidecar doesn't tell whether its database keeps what it acknowledged"),
            ),
            "state.redis" => (
                Level::BestEffort,
                Some(
                    "a sidecar doesn't tell whether its Redis keeps what it acknowledged, and the \
                     component writes on an etag where there is no key",
                ),
            ),
            _ => (Level::BestEffort, Some("tenure's suite hasn't run on this kind of component")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sidecar(kind: &str, capabilities: &str) -> Metadata {
        let text = format!(
            r#"{{"id":"shop","runtimeVersion":"1.16","components":[
                {{"name":"s","type":"{kind}","version":"v1","capabilities":[{capabilities}]}},
                {{"name":"bus","type":"pubsub.redis","version":"v1","capabilities":[]}}]}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    fn refusal(url: &str, metadata: Metadata) -> String {
        let error =
            find(&DaprConfig::from_url(url).unwrap(), metadata, Kinds::Accepted).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misconfigured);
        error.to_string()
    }

    #[test]
    fn a_component_is_refused_by_name_with_the_way_out() {
        let redis = || sidecar("state.redis", r#""ETAG""#);
        assert!(refusal("dapr:other", redis()).contains("it has s. Add"));
        assert!(refusal("dapr:bus", redis()).contains("no state store `bus`"));
        assert!(refusal("dapr:s", sidecar("state.etcd", r#""ETAG""#)).contains("both win"));
        assert!(refusal("dapr:s", sidecar("state.memcached", "")).contains("compares no etags"));
        let mysql = || sidecar("state.mysql", r#""ETAG""#);
        assert!(refusal("dapr:s", mysql()).contains("?accept=state.mysql"));
        let config = DaprConfig::from_url("dapr:s?accept=state.mysql").unwrap();
        assert!(!find(&config, mysql(), Kinds::Accepted).unwrap().proven);
    }

    #[test]
    fn no_component_is_more_than_a_lease() {
        for kind in PROVEN {
            let found = find(
                &DaprConfig::from_url("dapr:s").unwrap(),
                sidecar(kind, r#""ETAG","TRANSACTIONAL""#),
                Kinds::Any,
            );
            let (level, why) = found.unwrap().level();
            assert!(level <= Level::Lease && why.is_some(), "{kind}");
        }
    }
}
