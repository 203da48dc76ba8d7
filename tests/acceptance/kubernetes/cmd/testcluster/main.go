// Command testcluster is a real Kubernetes control plane in one process, for tests and demonstrations: embedded etcd,
// kube-apiserver and kube-controller-manager, linked from the published modules and started as libraries.
//
// It exists because what vmetal does to a tenant cluster (tokens, discovery, certificates, evictions, preconditions) is
// only proven against the real server: doubles accept what the server refuses. It has no scheduler, no DNS and no
// kube-proxy, because joining and releasing a node needs none of them.
//
// Network: every listener and every connection of this process is on loopback. Nodes reach the API server through
// whatever forwards --node-endpoint to --listen (a lab network, a QEMU guestfwd); this process only puts that address
// into its certificate and into the objects that a joining node reads.
//
// Life: prints one line starting with "ready" to standard output when a node could join, logs to standard error, stops on
// SIGTERM, SIGINT, or when its parent process ends (unless --keep-running).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/component-base/version"
)

const (
	// startLimit bounds the time from process start to "ready". An idle machine needs about five seconds.
	startLimit = 3 * time.Minute
	// stopLimit bounds the graceful stop: watches of other processes would otherwise hold the server open for a minute.
	stopLimit = 3 * time.Second
)

// settings is what the command line says, checked.
type settings struct {
	directory    string
	listen       *net.TCPAddr
	nodeEndpoint *url.URL
	keepRunning  bool
}

func parseSettings(arguments []string) (*settings, error) {
	flags := flag.NewFlagSet("testcluster", flag.ContinueOnError)
	directory := flags.String("dir", "", "directory for data, keys and admin.kubeconfig; created, and reused when it exists")
	listen := flags.String("listen", "127.0.0.1:0", "loopback address of the API server; port 0 picks a free one")
	nodeEndpoint := flags.String("node-endpoint", "", "URL at which nodes reach the API server (default: the listen address)")
	keepRunning := flags.Bool("keep-running", false, "outlive the parent process")
	if err := flags.Parse(arguments); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if *directory == "" {
		return nil, errors.New("--dir is required")
	}
	absolute, err := filepath.Abs(*directory)
	if err != nil {
		return nil, fmt.Errorf("--dir %q: %w", *directory, err)
	}
	address, err := net.ResolveTCPAddr("tcp4", *listen)
	if err != nil {
		return nil, fmt.Errorf("--listen %q: %w", *listen, err)
	}
	if !address.IP.IsLoopback() {
		return nil, fmt.Errorf("--listen %q: not a loopback address; this server's data store has no authentication", *listen)
	}
	result := &settings{directory: absolute, listen: address, keepRunning: *keepRunning}
	if *nodeEndpoint != "" {
		endpoint, err := url.Parse(*nodeEndpoint)
		if err != nil {
			return nil, fmt.Errorf("--node-endpoint %q: %w", *nodeEndpoint, err)
		}
		if endpoint.Scheme != "https" || endpoint.Port() == "" {
			return nil, fmt.Errorf("--node-endpoint %q: want https://ADDRESS:PORT", *nodeEndpoint)
		}
		result.nodeEndpoint = endpoint
	}
	return result, nil
}

func main() {
	// The parent is read before anything else: it must be known before it can end unnoticed.
	parent := os.Getppid()
	settings, err := parseSettings(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		os.Exit(0)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "testcluster:", err)
		os.Exit(2)
	}
	// Library code prints progress to standard output, which belongs to the "ready" line alone.
	output := os.Stdout
	os.Stdout = os.Stderr

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if !settings.keepRunning {
		if err := stopWithParent(parent, stop); err != nil {
			fmt.Fprintln(os.Stderr, "testcluster:", err)
			os.Exit(1)
		}
	}
	if err := run(ctx, settings, output); err != nil {
		fmt.Fprintln(os.Stderr, "testcluster:", err)
		os.Exit(1)
	}
}

// stopWithParent calls stop when the process that started us has ended.
//
// Not PR_SET_PDEATHSIG: that fires when the parent's *thread* ends, and test runners start children from threads that
// they let go (prctl(2), NOTES). A pidfd becomes readable when the whole process has ended.
func stopWithParent(parent int, stop context.CancelFunc) error {
	descriptor, err := unix.PidfdOpen(parent, 0)
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("watch parent process %d: %w", parent, err)
	}
	// A parent that ended before the call has already handed us to another one, and its number may be in use again.
	if err != nil || os.Getppid() != parent {
		return fmt.Errorf("parent process %d ended while starting", parent)
	}
	go func() {
		for {
			_, err := unix.Poll([]unix.PollFd{{Fd: int32(descriptor), Events: unix.POLLIN}}, -1)
			if !errors.Is(err, unix.EINTR) {
				break
			}
		}
		fmt.Fprintln(os.Stderr, "testcluster: parent process ended; stopping")
		stop()
	}()
	return nil
}

func run(ctx context.Context, settings *settings, output *os.File) error {
	started := time.Now()
	if err := os.MkdirAll(settings.directory, 0o700); err != nil {
		return fmt.Errorf("create data directory: %w", err)
	}
	// The listener is opened first, so that the port is ours from the moment it appears in a certificate or a file.
	listener, err := net.ListenTCP("tcp4", settings.listen)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", settings.listen, err)
	}
	local := &url.URL{Scheme: "https", Host: listener.Addr().String()}
	nodeEndpoint := settings.nodeEndpoint
	if nodeEndpoint == nil {
		nodeEndpoint = local
	}

	keys, err := issueKeys(filepath.Join(settings.directory, "pki"), nodeEndpoint.Hostname())
	if err != nil {
		return err
	}
	admin, err := keys.writeKubeconfig(filepath.Join(settings.directory, "admin.kubeconfig"), local.String(), adminIdentity)
	if err != nil {
		return err
	}
	controllers, err := keys.writeKubeconfig(filepath.Join(settings.directory, "controller-manager.kubeconfig"), local.String(), controllerIdentity)
	if err != nil {
		return err
	}

	plane, err := startControlPlane(ctx, planeInput{
		directory:            settings.directory,
		listener:             listener,
		keys:                 keys,
		adminKubeconfig:      admin,
		controllerKubeconfig: controllers,
	})
	if err != nil {
		return err
	}
	defer plane.stop()

	deadline, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	err = plane.guard(deadline, func(ctx context.Context) error {
		if err := prepareForJoin(ctx, plane.client, keys, nodeEndpoint); err != nil {
			return err
		}
		return waitUntilJoinable(ctx, plane.client)
	})
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("after %s: %w", time.Since(started).Round(time.Second), err)
	}
	if _, err := fmt.Fprintf(output, "ready kubeconfig=%s server=%s node-endpoint=%s version=%s\n", admin, local, nodeEndpoint, version.Get().GitVersion); err != nil {
		return fmt.Errorf("report readiness: %w", err)
	}
	return plane.guard(ctx, func(ctx context.Context) error {
		<-ctx.Done()
		return nil
	})
}
