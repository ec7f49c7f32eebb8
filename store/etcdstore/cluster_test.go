package etcdstore_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch/store/etcdstore"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/goleak"
	"go.uber.org/zap"
)

// A member is an etcd server of its own process: the test binary, run again. So
// it can be killed and stopped, and leaves nothing behind.
type member struct {
	t   *testing.T
	cmd *exec.Cmd

	Name, Dir    string
	Client, Peer string // URLs
	Cluster      string // name=peer,…
	Token        string
	Certificates string // a directory; empty: no TLS
}

const memberEnv = "ETCDSTORE_MEMBER"

func TestMain(m *testing.M) {
	if config := os.Getenv(memberEnv); config != "" {
		if err := serve(config); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	slog.SetDefault(slog.New(slog.DiscardHandler)) // for all without a logger of their own
	goleak.VerifyTestMain(m)
}

// serve is the member's process. It ends with its standard input.
func serve(config string) error {
	var m member
	if err := json.Unmarshal([]byte(config), &m); err != nil {
		return err
	}
	c := embed.NewConfig()
	c.Name, c.Dir, c.InitialCluster, c.InitialClusterToken = m.Name, m.Dir, m.Cluster, m.Token
	client, peer := mustURL(m.Client), mustURL(m.Peer)
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	c.TickMs, c.ElectionMs = 50, 500
	c.UnsafeNoFsync = true // a test's data is nobody's
	c.AuthToken = "simple"
	c.BcryptCost = 4
	if m.Certificates != "" {
		c.ClientTLSInfo = transport.TLSInfo{
			CertFile:       filepath.Join(m.Certificates, "cert.pem"),
			KeyFile:        filepath.Join(m.Certificates, "key.pem"),
			TrustedCAFile:  filepath.Join(m.Certificates, "cert.pem"),
			ClientCertAuth: true,
		}
	}
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	server, err := embed.StartEtcd(c)
	if err != nil {
		return err
	}
	go func() {
		<-server.Server.ReadyNotify()
		fmt.Println("ready")
	}()
	io.Copy(io.Discard, os.Stdin)
	return nil
}

func mustURL(text string) url.URL {
	u, err := url.Parse(text)
	if err != nil {
		panic(err)
	}
	return *u
}

// freeURL returns a URL at which nothing listens.
func freeURL(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String()
}

// newCluster starts some members, and returns when they have a leader.
func newCluster(t *testing.T, n int) []*member {
	t.Helper()
	members := make([]*member, n)
	var all []string
	for i := range members {
		name := fmt.Sprint("m", i)
		members[i] = &member{t: t, Name: name, Dir: filepath.Join(t.TempDir(), name), Client: freeURL(t), Peer: freeURL(t), Token: t.Name()}
		all = append(all, name+"="+members[i].Peer)
	}
	for _, m := range members {
		m.Cluster = strings.Join(all, ",")
	}
	startAll(members...)
	return members
}

// startAll starts members and waits until each is ready: it may take several.
func startAll(members ...*member) {
	var starting sync.WaitGroup
	for _, m := range members {
		m.t.Helper()
		ready := m.start()
		starting.Go(ready)
	}
	starting.Wait()
}

// start starts the member, and returns a function that waits until it serves.
func (m *member) start() (ready func()) {
	m.t.Helper()
	config, err := json.Marshal(m)
	if err != nil {
		m.t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), memberEnv+"="+string(config))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.cmd = cmd
	m.t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		stdin.Close()
	})
	return func() {
		line, err := bufio.NewReader(stdout).ReadString('\n')
		if line != "ready\n" {
			m.t.Errorf("member %s: %q, %v", m.Name, line, err)
		}
	}
}

// kill ends the member's process at once.
func (m *member) kill() {
	m.cmd.Process.Kill()
	m.cmd.Wait()
}

func clientURLs(members []*member) (urls []string) {
	for _, m := range members {
		urls = append(urls, m.Client)
	}
	return urls
}

// dial returns a store on the endpoints, quick to ask.
func dial(t *testing.T, endpoints ...string) *etcdstore.Store {
	t.Helper()
	return dialAs(t, clientv3.Config{Endpoints: endpoints})
}

func dialAs(t *testing.T, config clientv3.Config) *etcdstore.Store {
	t.Helper()
	s, err := etcdstore.Dial(config)
	if err != nil {
		t.Fatal(err)
	}
	s.Check, s.Timeout = 500*time.Millisecond, 15*time.Second // on a busy machine, too
	t.Cleanup(func() { s.Close() })
	return s
}

// A wire is a TCP proxy that can be cut without anybody being told.
type wire struct {
	listener net.Listener
	to       string

	mu    sync.Mutex
	cut   chan struct{} // closed when it is healed; nil: it is whole
	conns map[net.Conn]bool
}

func newWire(t *testing.T, to string) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{listener: l, to: strings.TrimPrefix(to, "http://"), conns: make(map[net.Conn]bool)}
	var running sync.WaitGroup
	running.Go(func() { w.accept(&running) })
	t.Cleanup(func() {
		l.Close()
		w.heal()
		w.mu.Lock()
		for c := range w.conns {
			c.Close()
		}
		w.conns = nil
		w.mu.Unlock()
		running.Wait()
	})
	return w
}

func (w *wire) url() string { return "http://" + w.listener.Addr().String() }

func (w *wire) accept(running *sync.WaitGroup) {
	for {
		near, err := w.listener.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", w.to)
		if err != nil {
			near.Close()
			continue
		}
		for _, pair := range [][2]net.Conn{{near, far}, {far, near}} {
			running.Go(func() { w.carry(pair[0], pair[1]) })
		}
	}
}

// carry copies, but not across a cut: what comes then has to wait.
func (w *wire) carry(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	w.mu.Lock()
	closed := w.conns == nil
	if !closed {
		w.conns[to] = true
	}
	w.mu.Unlock()
	for buf := make([]byte, 32<<10); !closed; {
		n, err := from.Read(buf)
		w.mu.Lock()
		cut := w.cut
		w.mu.Unlock()
		if cut != nil {
			<-cut
		}
		if _, writeErr := to.Write(buf[:n]); err != nil || writeErr != nil {
			break
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.conns, to)
}

func (w *wire) sever() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cut == nil {
		w.cut = make(chan struct{})
	}
}

func (w *wire) heal() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cut != nil {
		close(w.cut)
		w.cut = nil
	}
}

// leader returns which member leads.
func leader(t *testing.T, client *clientv3.Client, members []*member) *member {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		for _, m := range members {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			status, err := client.Status(ctx, m.Client)
			cancel()
			if err == nil && status.Leader == status.Header.MemberId {
				return m
			}
		}
	}
	t.Fatal("nobody leads")
	return nil
}
