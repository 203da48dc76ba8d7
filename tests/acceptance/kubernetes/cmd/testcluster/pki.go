package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// serviceNetwork is the range of Service addresses; its first address is the API server's own Service.
const (
	serviceNetwork      = "10.96.0.0/16"
	serviceFirstAddress = "10.96.0.1"
)

// identity is a client certificate's subject: Kubernetes reads the user from the common name and groups from the
// organisations.
type identity struct {
	user   string
	groups []string
}

var (
	adminIdentity      = identity{user: "vmetal-test-admin", groups: []string{"system:masters"}}
	controllerIdentity = identity{user: "system:kube-controller-manager"}
)

// keyring is the cluster's key material. The authority and the service-account key outlive a restart, since nodes and
// tokens are bound to them; everything else is issued again at each start, for the addresses of that start.
type keyring struct {
	caCertificate *x509.Certificate
	caKey         *ecdsa.PrivateKey

	caCertFile, caKeyFile           string
	serverCertFile, serverKeyFile   string
	serviceAccountKeyFile           string
	serviceAccountPublicKeyFile     string
	notBefore, caNotAfter, leafDate time.Time
}

// issueKeys makes or loads the keys in directory. The server's certificate is valid for loopback, the Service names and
// nodeHost.
func issueKeys(directory, nodeHost string) (*keyring, error) {
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return nil, fmt.Errorf("create key directory: %w", err)
	}
	now := time.Now()
	keys := &keyring{
		caCertFile:                  filepath.Join(directory, "ca.crt"),
		caKeyFile:                   filepath.Join(directory, "ca.key"),
		serverCertFile:              filepath.Join(directory, "apiserver.crt"),
		serverKeyFile:               filepath.Join(directory, "apiserver.key"),
		serviceAccountKeyFile:       filepath.Join(directory, "service-account.key"),
		serviceAccountPublicKeyFile: filepath.Join(directory, "service-account.pub"),
		// A virtual machine's clock may be a little behind ours.
		notBefore:  now.Add(-time.Hour),
		caNotAfter: now.AddDate(10, 0, 0),
		leafDate:   now.AddDate(1, 0, 0),
	}
	if err := keys.loadOrCreateAuthority(); err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	serviceAccountKey, err := loadOrCreateKey(keys.serviceAccountKeyFile)
	if err != nil {
		return nil, fmt.Errorf("service account key: %w", err)
	}
	public, err := x509.MarshalPKIXPublicKey(&serviceAccountKey.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("service account key: %w", err)
	}
	if err := writePEM(keys.serviceAccountPublicKeyFile, "PUBLIC KEY", public); err != nil {
		return nil, err
	}

	serverKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("server key: %w", err)
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "kube-apiserver"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:    []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.ParseIP(serviceFirstAddress)},
	}
	if address := net.ParseIP(nodeHost); address != nil {
		template.IPAddresses = append(template.IPAddresses, address)
	} else {
		template.DNSNames = append(template.DNSNames, nodeHost)
	}
	certificate, err := keys.sign(template, &serverKey.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("server certificate: %w", err)
	}
	if err := writePEM(keys.serverCertFile, "CERTIFICATE", certificate); err != nil {
		return nil, err
	}
	return keys, writeKey(keys.serverKeyFile, serverKey)
}

func (k *keyring) loadOrCreateAuthority() error {
	key, err := loadOrCreateKey(k.caKeyFile)
	if err != nil {
		return err
	}
	k.caKey = key
	der, err := readPEM(k.caCertFile)
	if errors.Is(err, fs.ErrNotExist) {
		serial, err := newSerial()
		if err != nil {
			return err
		}
		template := &x509.Certificate{
			SerialNumber:          serial,
			Subject:               pkix.Name{CommonName: "vmetal-test-cluster-ca"},
			NotBefore:             k.notBefore,
			NotAfter:              k.caNotAfter,
			KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
			BasicConstraintsValid: true,
			IsCA:                  true,
		}
		der, err = x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
		if err != nil {
			return err
		}
		if err := writePEM(k.caCertFile, "CERTIFICATE", der); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	k.caCertificate, err = x509.ParseCertificate(der)
	return err
}

// sign completes template as a certificate for an end entity and signs it.
func (k *keyring) sign(template *x509.Certificate, public *ecdsa.PublicKey) ([]byte, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	template.NotBefore = k.notBefore
	template.NotAfter = k.leafDate
	template.KeyUsage = x509.KeyUsageDigitalSignature
	return x509.CreateCertificate(rand.Reader, template, k.caCertificate, public, k.caKey)
}

// writeKubeconfig issues a client certificate for who and writes a self-contained kubeconfig for server to path.
func (k *keyring) writeKubeconfig(path, server string, who identity) (string, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", fmt.Errorf("key of %s: %w", who.user, err)
	}
	certificate, err := k.sign(&x509.Certificate{
		Subject:     pkix.Name{CommonName: who.user, Organization: who.groups},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, &key.PublicKey)
	if err != nil {
		return "", fmt.Errorf("certificate of %s: %w", who.user, err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return "", fmt.Errorf("key of %s: %w", who.user, err)
	}
	const cluster = "test"
	config := k.clusterConfig(cluster, server)
	config.AuthInfos[who.user] = &clientcmdapi.AuthInfo{
		ClientCertificateData: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}),
		ClientKeyData:         pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}),
	}
	config.Contexts[cluster].AuthInfo = who.user
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		return "", fmt.Errorf("write %s: %w", path, err)
	}
	return path, nil
}

// clusterConfig is a kubeconfig that knows the server and its authority, but no user.
func (k *keyring) clusterConfig(name, server string) *clientcmdapi.Config {
	config := clientcmdapi.NewConfig()
	config.Clusters[name] = &clientcmdapi.Cluster{
		Server:                   server,
		CertificateAuthorityData: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: k.caCertificate.Raw}),
	}
	config.Contexts[name] = &clientcmdapi.Context{Cluster: name}
	config.CurrentContext = name
	return config
}

func newSerial() (*big.Int, error) {
	return rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
}

func loadOrCreateKey(path string) (*ecdsa.PrivateKey, error) {
	der, err := readPEM(path)
	if err == nil {
		return x509.ParseECPrivateKey(der)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return key, writeKey(path, key)
}

func writeKey(path string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return writePEM(path, "EC PRIVATE KEY", der)
}

func readPEM(path string) ([]byte, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(content)
	if block == nil {
		return nil, fmt.Errorf("%s holds no PEM block; delete the directory to start afresh", path)
	}
	return block.Bytes, nil
}

func writePEM(path, kind string, der []byte) error {
	content := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	if err := os.WriteFile(path, content, 0o600); err != nil {
		return fmt.Errorf("write key material: %w", err)
	}
	return nil
}
