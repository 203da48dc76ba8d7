package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	bootstrapapi "k8s.io/cluster-bootstrap/token/api"
	"k8s.io/component-base/version"
	"k8s.io/kubernetes/cmd/kubeadm/app/phases/bootstraptoken/clusterinfo"
	"k8s.io/kubernetes/cmd/kubeadm/app/phases/bootstraptoken/node"
	"k8s.io/kubernetes/cmd/kubeadm/app/phases/kubelet"
	"k8s.io/kubernetes/cmd/kubeadm/app/phases/uploadconfig"
	kubeadmconfig "k8s.io/kubernetes/cmd/kubeadm/app/util/config"
)

// prepareForJoin creates what `kubeadm init` would have left in the cluster for joining nodes: kubeadm-config,
// kubelet-config, cluster-info, and the rules that let a bootstrap token read them and obtain a certificate. It calls
// kubeadm's own phases, so the objects are what a real cluster of this version holds. No token is made.
func prepareForJoin(ctx context.Context, client kubernetes.Interface, keys *keyring, nodeEndpoint *url.URL) error {
	// The static defaults ask neither the network (for a version) nor the machine (for an address).
	config, err := kubeadmconfig.DefaultedStaticInitConfiguration()
	if err != nil {
		return fmt.Errorf("kubeadm configuration: %w", err)
	}
	config.KubernetesVersion = version.Get().GitVersion
	config.ControlPlaneEndpoint = nodeEndpoint.Host
	config.Networking.ServiceSubnet = serviceNetwork

	steps := []struct {
		name string
		run  func() error
	}{
		{"kubeadm-config", func() error { return uploadconfig.UploadConfiguration(config, client) }},
		{"kubelet-config", func() error { return kubelet.CreateConfigMap(&config.ClusterConfiguration, client) }},
		{"token access to nodes", func() error { return node.AllowBootstrapTokensToGetNodes(client) }},
		{"token access to certificate requests", func() error { return node.AllowBootstrapTokensToPostCSRs(client) }},
		{"approval of first certificates", func() error { return node.AutoApproveNodeBootstrapTokens(client) }},
		{"approval of renewed certificates", func() error { return node.AutoApproveNodeCertificateRotation(client) }},
		{"cluster-info", func() error {
			return clusterinfo.CreateBootstrapConfigMapIfNotExists(client, keys.clusterConfig("", nodeEndpoint.String()))
		}},
		{"access to cluster-info", func() error { return clusterinfo.CreateClusterInfoRBACRules(client) }},
	}
	for _, step := range steps {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := step.run(); err != nil {
			return fmt.Errorf("create %s: %w", step.name, err)
		}
	}
	return nil
}

// waitUntilJoinable waits for what the controllers make: the authority's certificate in kube-system, which pins a join,
// and the default ServiceAccount, without which no pod can be created.
func waitUntilJoinable(ctx context.Context, client kubernetes.Interface) error {
	return poll(ctx, "the controllers to publish the cluster's authority and default ServiceAccount", func(ctx context.Context) error {
		_, authority := client.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
		_, account := client.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Get(ctx, "default", metav1.GetOptions{})
		_, info := client.CoreV1().ConfigMaps(metav1.NamespacePublic).Get(ctx, bootstrapapi.ConfigMapClusterInfo, metav1.GetOptions{})
		return errors.Join(authority, account, info)
	})
}
