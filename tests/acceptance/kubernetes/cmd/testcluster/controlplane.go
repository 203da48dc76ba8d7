package main

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"time"

	"github.com/spf13/pflag"
	"go.etcd.io/etcd/server/v3/embed"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	cliflag "k8s.io/component-base/cli/flag"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	apiserveroptions "k8s.io/kubernetes/cmd/kube-apiserver/app/options"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	controlleroptions "k8s.io/kubernetes/cmd/kube-controller-manager/app/options"
)

// nodeMonitorGracePeriod is how long a node may be silent before it counts as Unknown. Shorter than Kubernetes' 50 s so
// that tests of a lost node end sooner; an emulated node still renews its lease in time.
const nodeMonitorGracePeriod = 40 * time.Second

type planeInput struct {
	directory                             string
	listener                              *net.TCPListener
	keys                                  *keyring
	adminKubeconfig, controllerKubeconfig string
}

// controlPlane is the running trio. The order of its life is fixed: etcd starts first and stops last.
type controlPlane struct {
	etcd   *embed.Etcd
	client kubernetes.Interface
	// cancel ends the API server and the controllers.
	cancel context.CancelFunc
	// ended receives the outcome of each of the two as it returns.
	ended   chan error
	running int
}

func startControlPlane(ctx context.Context, input planeInput) (*controlPlane, error) {
	etcd, err := startEtcd(ctx, filepath.Join(input.directory, "etcd"))
	if err != nil {
		return nil, err
	}
	// Not derived from ctx: components end in stop, in order, not whenever a signal arrives.
	componentCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	plane := &controlPlane{etcd: etcd, cancel: cancel, ended: make(chan error, 2)}

	config, err := clientcmd.BuildConfigFromFlags("", input.adminKubeconfig)
	if err != nil {
		plane.stop()
		return nil, fmt.Errorf("read %s: %w", input.adminKubeconfig, err)
	}
	// The start-up makes a burst of some dozens of calls; the client's default of five a second would stretch it.
	config.QPS, config.Burst = 200, 400
	plane.client, err = kubernetes.NewForConfig(config)
	if err != nil {
		plane.stop()
		return nil, fmt.Errorf("client: %w", err)
	}

	plane.launch("kube-apiserver", func() error { return runAPIServer(componentCtx, input, etcd.Clients[0].Addr()) })
	startCtx, cancelStart := context.WithTimeout(ctx, startLimit)
	defer cancelStart()
	if err := plane.guard(startCtx, plane.waitUntilServing); err != nil {
		plane.stop()
		return nil, err
	}
	// The controllers give up when they find no server, so they come second.
	plane.launch("kube-controller-manager", func() error { return runControllers(componentCtx, input) })
	return plane, nil
}

func (p *controlPlane) launch(name string, body func() error) {
	p.running++
	go func() {
		err := body()
		if err == nil {
			err = fmt.Errorf("%s returned", name)
		} else {
			err = fmt.Errorf("%s: %w", name, err)
		}
		p.ended <- err
	}()
}

// guard runs body and returns its error, or the error of the component that ended meanwhile: without it, a component that
// refuses its configuration would be reported as a time-out of whatever waits for it.
func (p *controlPlane) guard(ctx context.Context, body func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- body(ctx) }()
	select {
	case err := <-done:
		return err
	case err := <-p.ended:
		p.running--
		return err
	case err := <-p.etcd.Err():
		return fmt.Errorf("etcd: %w", err)
	}
}

func (p *controlPlane) stop() {
	p.cancel()
	limit := time.After(stopLimit)
	for p.running > 0 {
		select {
		case <-p.ended:
			p.running--
			continue
		case <-limit:
		}
		break
	}
	p.etcd.Close()
}

func (p *controlPlane) waitUntilServing(ctx context.Context) error {
	return poll(ctx, "the API server to report /readyz", func(ctx context.Context) error {
		return p.client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	})
}

// poll repeats attempt until it succeeds; when ctx ends first, the error names the wait and the last failure.
func poll(ctx context.Context, what string, attempt func(context.Context) error) error {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		// One attempt must not eat the whole time: a connection made too early can hang.
		attemptCtx, cancel := context.WithTimeout(ctx, 10*time.Second)
		err := attempt(attemptCtx)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w (last: %w)", what, ctx.Err(), err)
		case <-ticker.C:
		}
	}
}

func startEtcd(ctx context.Context, directory string) (*embed.Etcd, error) {
	config := embed.NewConfig()
	config.Name = "testcluster"
	config.Dir = directory
	config.LogLevel = "error"
	config.LogOutputs = []string{"stderr"}
	// A lost write after a power cut costs a test cluster nothing; an fsync per write costs every test.
	config.UnsafeNoFsync = true
	// The gateway connects to the configured port, which is not known before the listener exists.
	config.EnableGRPCGateway = false
	anyPort := url.URL{Scheme: "http", Host: "127.0.0.1:0"}
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{anyPort}, []url.URL{anyPort}
	config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{anyPort}, []url.URL{anyPort}
	config.InitialCluster = config.InitialClusterFromName(config.Name)

	etcd, err := embed.StartEtcd(config)
	if err != nil {
		return nil, fmt.Errorf("etcd: %w", err)
	}
	select {
	case <-etcd.Server.ReadyNotify():
		return etcd, nil
	case err := <-etcd.Err():
		etcd.Close()
		return nil, fmt.Errorf("etcd: %w", err)
	case <-ctx.Done():
		etcd.Close()
		return nil, fmt.Errorf("etcd: %w", ctx.Err())
	case <-time.After(startLimit):
		etcd.Close()
		return nil, fmt.Errorf("etcd: not ready within %s", startLimit)
	}
}

func runAPIServer(ctx context.Context, input planeInput, etcd net.Addr) error {
	keys := input.keys
	options := apiserveroptions.NewServerRunOptions()
	// Handing over the open listener keeps the port ours; the flag only tells the server its number.
	options.SecureServing.Listener = input.listener
	err := parseFlags("kube-apiserver", options.Flags(), []string{
		"--etcd-servers=http://" + etcd.String(),
		"--bind-address=127.0.0.1",
		fmt.Sprintf("--secure-port=%d", input.listener.Addr().(*net.TCPAddr).Port),
		"--advertise-address=127.0.0.1",
		// The reconciler refuses a loopback address as the endpoint of the Service "kubernetes".
		"--endpoint-reconciler-type=none",
		"--tls-cert-file=" + keys.serverCertFile,
		"--tls-private-key-file=" + keys.serverKeyFile,
		"--client-ca-file=" + keys.caCertFile,
		"--service-account-key-file=" + keys.serviceAccountPublicKeyFile,
		"--service-account-signing-key-file=" + keys.serviceAccountKeyFile,
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-cluster-ip-range=" + serviceNetwork,
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--enable-bootstrap-token-auth=true",
		"--allow-privileged=true",
		"--profiling=false",
	})
	if err != nil {
		return err
	}
	if err := options.GenericServerRunOptions.ComponentGlobalsRegistry.Set(); err != nil {
		return fmt.Errorf("feature gates: %w", err)
	}
	rest.SetDefaultWarningHandler(rest.NoWarnings{})
	completed, err := options.Complete(ctx)
	if err != nil {
		return fmt.Errorf("options: %w", err)
	}
	if problems := completed.Validate(); len(problems) > 0 {
		return fmt.Errorf("options: %w", utilerrors.NewAggregate(problems))
	}
	return apiserver.Run(ctx, completed)
}

func runControllers(ctx context.Context, input planeInput) error {
	keys := input.keys
	options, err := controlleroptions.NewKubeControllerManagerOptions()
	if err != nil {
		return fmt.Errorf("options: %w", err)
	}
	known, disabled, aliases := controllermanager.KnownControllers(), controllermanager.ControllersDisabledByDefault(), controllermanager.ControllerAliases()
	err = parseFlags("kube-controller-manager", options.Flags(known, disabled, aliases), []string{
		"--kubeconfig=" + input.controllerKubeconfig,
		// Its own port would clash with a second test cluster on this machine; nobody asks there.
		"--secure-port=0",
		"--leader-elect=false",
		// Both are off by default. Without the first nobody signs cluster-info and every join waits in vain.
		"--controllers=*,bootstrap-signer-controller,token-cleaner-controller",
		"--cluster-signing-cert-file=" + keys.caCertFile,
		"--cluster-signing-key-file=" + keys.caKeyFile,
		"--root-ca-file=" + keys.caCertFile,
		"--service-account-private-key-file=" + keys.serviceAccountKeyFile,
		"--service-cluster-ip-range=" + serviceNetwork,
		"--use-service-account-credentials=true",
		"--node-monitor-grace-period=" + nodeMonitorGracePeriod.String(),
		"--profiling=false",
	})
	if err != nil {
		return err
	}
	if err := options.ComponentGlobalsRegistry.Set(); err != nil {
		return fmt.Errorf("feature gates: %w", err)
	}
	config, err := options.Config(ctx, known, disabled, aliases)
	if err != nil {
		return fmt.Errorf("options: %w", err)
	}
	return controllermanager.Run(ctx, config.Complete())
}

// parseFlags configures a component the way its documentation describes, by flags, whatever its option structs look like
// in this version.
func parseFlags(name string, sets cliflag.NamedFlagSets, arguments []string) error {
	flags := pflag.NewFlagSet(name, pflag.ContinueOnError)
	for _, set := range sets.FlagSets {
		flags.AddFlagSet(set)
	}
	if err := flags.Parse(arguments); err != nil {
		return fmt.Errorf("flags: %w", err)
	}
	return nil
}
