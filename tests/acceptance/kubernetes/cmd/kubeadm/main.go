// Command kubeadm is the upstream kubeadm, built from the published module so that the join a node performs is the
// same code as everywhere else, at the version of the test control plane.
package main

import (
	"k8s.io/kubernetes/cmd/kubeadm/app"
	"k8s.io/kubernetes/cmd/kubeadm/app/util/errors"
)

func main() {
	errors.HandleError(app.Run())
}
