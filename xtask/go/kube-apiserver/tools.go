// Names the program that is built here, so that `go mod tidy` keeps what it needs. To move to another
// release of Kubernetes: change the one `require`, and the version of each `replace` of `k8s.io/…` with it.
package main

import _ "k8s.io/kubernetes/cmd/kube-apiserver/app"
