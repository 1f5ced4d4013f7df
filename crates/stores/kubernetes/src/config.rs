//! Which cluster, which of its namespaces, and which of tenure's.

use std::fmt;
use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use tenure_core::cluster;
use tenure_core::error::Error;
use tenure_core::identity::{Name, Namespace};

use crate::names::{is_kube_namespace, object};

const OPTIONS: &str = "namespace, cluster, context and kubeconfig";

/// Which cluster, which of its namespaces, and which of tenure's.
#[derive(Clone)]
#[non_exhaustive]
pub struct KubernetesConfig {
    /// What stands before every name: tenure's word, not the namespace of Kubernetes.
    pub namespace: Namespace,
    /// The mark that the store must bear; a new store is given it.
    pub cluster: Option<String>,
    pub(crate) place: Place,
}

/// How the API server is found.
#[derive(Clone)]
pub(crate) enum Place {
    /// By a kubeconfig or, where there is none, by the pod's service account.
    Found(Found),
    /// By the host's own client.
    Client { client: kube::Client, kube_namespace: String },
}

/// What a URL says of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// None: the context's, or the pod's.
    pub(crate) kube_namespace: Option<String>,
    /// None: the current one.
    pub(crate) context: Option<String>,
    /// None: `KUBECONFIG`, or `~/.kube/config`.
    pub(crate) kubeconfig: Option<PathBuf>,
}

impl fmt::Debug for KubernetesConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("KubernetesConfig");
        shown.field("namespace", &self.namespace).field("cluster", &self.cluster);
        match &self.place {
            Place::Found(found) => shown.field("place", found),
            Place::Client { kube_namespace, .. } => shown.field("kube_namespace", kube_namespace),
        };
        shown.finish_non_exhaustive()
    }
}

impl KubernetesConfig {
    fn at(place: Place) -> Self {
        Self { namespace: Namespace::default(), cluster: None, place }
    }

    /// The cluster and the namespace of Kubernetes that a client of the host's own has.
    ///
    /// The client should repeat nothing by itself (`Config::default_retry`): what it repeats after an
    /// answer was lost is found out, but costs a request.
    #[must_use]
    pub fn of_client(client: kube::Client) -> Self {
        let kube_namespace = client.default_namespace().to_owned();
        Self::at(Place::Client { client, kube_namespace })
    }

    /// The `Lease` object that keeps a lease of this namespace: what `kubectl get lease` calls it.
    ///
    /// In the namespace `default` a name that Kubernetes takes is its own object's; so client-go's
    /// replicas name the same one.
    #[must_use]
    pub fn object(&self, name: &Name) -> String {
        object(&self.namespace, name)
    }

    /// Reads a URL: `kubernetes://[KUBERNETES-NAMESPACE][?context=…&kubeconfig=…]`.
    ///
    /// Without either option the kubeconfig is `KUBECONFIG` or `~/.kube/config`; in a pod that has none,
    /// its service account. `namespace` is tenure's, and `cluster` the mark that the store must bear.
    /// Values are percent-decoded.
    ///
    /// # Errors
    /// [`Invalid`](tenure_core::ErrorKind::Invalid): another scheme, a namespace that Kubernetes can't
    /// have, an option that is unknown or given twice, or a value that can't be used.
    pub fn from_url(url: &str) -> Result<Self, Error> {
        let (place, options) = url.split_once('?').unwrap_or((url, ""));
        let Some(rest) = place.strip_prefix("kubernetes:") else {
            return Err(Error::invalid("the URL of a Kubernetes store begins with `kubernetes:`"));
        };
        let Some(kube_namespace) = rest.strip_prefix("//") else {
            return Err(Error::invalid("write `kubernetes://NAMESPACE` with two slashes"));
        };
        let mut found = Found::default();
        let kube_namespace = kube_namespace.trim_end_matches('/');
        if !kube_namespace.is_empty() {
            if !is_kube_namespace(kube_namespace) {
                return Err(Error::invalid(format!(
                    "`{kube_namespace}` can't be a namespace of Kubernetes: write \
                     `kubernetes://NAMESPACE?context=CONTEXT`"
                )));
            }
            found.kube_namespace = Some(kube_namespace.to_owned());
        }
        let (mut namespace, mut cluster) = (None, None);
        for option in options.split('&').filter(|option| !option.is_empty()) {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            let value = decoded(value)?;
            match key {
                "namespace" => once(key, &mut namespace, Namespace::new(value)?)?,
                "cluster" => {
                    cluster::check(&value)?;
                    once(key, &mut cluster, value)?;
                }
                "context" | "kubeconfig" if value.is_empty() => {
                    return Err(Error::invalid(format!("the option `{key}` has no value")));
                }
                "context" => once(key, &mut found.context, value)?,
                "kubeconfig" => once(key, &mut found.kubeconfig, PathBuf::from(value))?,
                _ => {
                    return Err(Error::invalid(format!(
                        "a Kubernetes store has no option `{key}`; it has {OPTIONS}"
                    )));
                }
            }
        }
        let namespace = namespace.unwrap_or_default();
        Ok(Self { namespace, cluster, place: Place::Found(found) })
    }
}

fn once<T>(option: &str, place: &mut Option<T>, value: T) -> Result<(), Error> {
    if place.replace(value).is_some() {
        return Err(Error::invalid(format!("the option `{option}` is given twice in the URL")));
    }
    Ok(())
}

fn decoded(text: &str) -> Result<String, Error> {
    percent_decode_str(text)
        .decode_utf8()
        .map(Into::into)
        .map_err(|_| Error::invalid("a part of the URL isn't percent-encoded UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> (KubernetesConfig, Found) {
        let config = KubernetesConfig::from_url(url).unwrap();
        let Place::Found(found) = config.place.clone() else { panic!("{config:?}") };
        (config, found)
    }

    #[test]
    fn a_url_names_the_cluster_and_the_namespace() {
        assert_eq!(read("kubernetes://").1, Found::default());
        let (config, found) =
            read("kubernetes://prod?context=a%2Fb&kubeconfig=/x/y&namespace=shop&cluster=eu");
        assert_eq!(found.kube_namespace.as_deref(), Some("prod"));
        assert_eq!(found.context.as_deref(), Some("a/b"));
        assert_eq!(found.kubeconfig, Some(PathBuf::from("/x/y")));
        assert_eq!(config.namespace.as_str(), "shop");
        assert_eq!(config.cluster.as_deref(), Some("eu"));
    }

    #[test]
    fn a_url_that_cannot_be_meant_is_refused_with_a_sentence() {
        for (url, why) in [
            ("sqlite:/x", "begins with `kubernetes:`"),
            ("kubernetes:prod", "two slashes"),
            ("kubernetes://prod.eu", "can't be a namespace"),
            ("kubernetes://a/b", "can't be a namespace"),
            ("kubernetes://?contxt=a", "it has namespace, cluster, context"),
            ("kubernetes://?context=a&context=b", "given twice"),
            ("kubernetes://?context=", "no value"),
            ("kubernetes://?cluster=", "cluster mark can't be used"),
            ("kubernetes://?namespace=", "namespace is empty"),
        ] {
            let error = KubernetesConfig::from_url(url).unwrap_err();
            assert_eq!(error.kind(), tenure_core::ErrorKind::Invalid, "{url}");
            assert!(error.to_string().contains(why), "{url}: {error}");
        }
    }
}
