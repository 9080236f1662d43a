package broker_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/redistest"
)

// certificate writes a self-signed certificate for 127.0.0.1 and returns its pool.
func certificate(t *testing.T) (certFile, keyFile string, pool *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "redis"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	directory := t.TempDir()
	certFile, keyFile = filepath.Join(directory, "cert.pem"), filepath.Join(directory, "key.pem")
	write(t, certFile, "CERTIFICATE", der)
	write(t, keyFile, "PRIVATE KEY", keyDER)
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool = x509.NewCertPool()
	pool.AddCert(parsed)
	return certFile, keyFile, pool
}

func write(t *testing.T, file, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	certFile, keyFile, pool := certificate(t)
	tlsPort := freePort(t)
	redistest.Start(t, "--tls-port", tlsPort, "--tls-cert-file", certFile, "--tls-key-file", keyFile,
		"--tls-ca-cert-file", certFile, "--tls-auth-clients", "no")
	address := "127.0.0.1:" + tlsPort
	t.Run("trusted", func(t *testing.T) {
		b, r, _ := start(t, broker.RedisOptions{URL: "rediss://" + address, TLSConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}})
		ready(t, b, r, plain("job:1"))
	})
	t.Run("untrusted", func(t *testing.T) {
		b, r, lines := start(t, broker.RedisOptions{URL: "rediss://" + address})
		r.Wait(t, "a line", func() bool { return strings.Contains(lines.String(), "cause=tls") })
		if b.Health().Delivering {
			t.Fatal("delivers")
		}
	})
	t.Run("plain to a tls port", func(t *testing.T) {
		b, r, lines := start(t, broker.RedisOptions{URL: "redis://" + address})
		r.Wait(t, "a line", func() bool { return strings.Contains(lines.String(), "rediss://") })
		if b.Health().Delivering {
			t.Fatal("delivers")
		}
	})
}

func TestUnixSocket(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "redis.sock")
	redistest.Start(t, "--unixsocket", socket)
	b, r, _ := start(t, broker.RedisOptions{URL: "unix://" + socket})
	ready(t, b, r, plain("job:1"))
}
