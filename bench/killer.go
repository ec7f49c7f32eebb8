package main

import (
	"bufio"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/slipswitch/slipswitch"
)

// A killer keeps sockets open through examples/gateway and ends them, each in a
// way of its own: by either end, by the gateway's routes and API, by the death
// of the process that an upstream is in. It writes down who has ended which and how,
// and compares that with the gateway's close reports: they must agree in all.
type killer struct {
	during  time.Duration
	sockets int
	race    bool

	gateway   *gateway
	seats     []*seat
	upstreams [2]string // URLs, of the same server

	mu      sync.Mutex
	reports map[any][]map[string]any // by route
	wrong   []error
	ways    map[string]int // how often each was taken
}

// A seat is a route, and the one socket that is open there at a time.
type seat struct {
	killer  *killer
	path    string
	process *victim           // the upstream's; nil: it is in this one
	arrived chan *net.TCPConn // upstream's ends, if they are in this one
	busy    sync.Mutex        // held by whoever opens or ends its socket
	client  *net.TCPConn      // nil: none is open
	dead    chan struct{}     // closed when its upstream's process has been killed
	killed  []killing         // this is the killer's own log
}

// A killing is what must be reported.
type killing struct {
	way, by, why string
	hows         []string // one of these
	at           time.Time
}

// A victim is an upstream in a process of its own, which will be killed.
type victim struct {
	cmd   *exec.Cmd
	url   string
	stdin io.Closer
	seats []*seat
}

// run returns a line of figures, and what was wrong.
func (k *killer) run(ctx context.Context) (line string, err error) {
	k.reports, k.ways = map[any][]map[string]any{}, map[string]int{}
	dir, err := os.MkdirTemp("", "killer")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	program, err := buildGateway(ctx, dir, k.race)
	if err != nil {
		return "", err
	}
	self := filepath.Join(dir, "bench.exe")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", self, "github.com/slipswitch/slipswitch/bench").CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	whole, cancel := context.WithCancel(ctx)
	defer cancel()
	if k.gateway, err = startGateway(whole, program, k.logged); err != nil {
		return "", err
	}
	for i := range k.upstreams {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", err
		}
		k.upstreams[i] = "http://" + listener.Addr().String()
		server := &http.Server{Handler: http.HandlerFunc(k.serve)}
		go server.Serve(listener)
		defer server.Close()
	}
	victims := make([]*victim, 1+k.sockets/50)
	for i := range victims {
		victims[i] = new(victim)
		if err := victims[i].start(self); err != nil {
			return "", err
		}
		defer func() { victims[i].kill() }()
	}
	for i := range k.sockets {
		s := &seat{killer: k, path: fmt.Sprintf("/webapp-01/ide-%d", i), arrived: make(chan *net.TCPConn, 1)}
		if i%4 == 0 {
			s.process = victims[i/4%len(victims)]
			s.process.seats = append(s.process.seats, s)
		}
		k.seats = append(k.seats, s)
		if err := s.route(whole, nil); err != nil {
			return "", err
		}
	}
	storm, calm := context.WithTimeout(whole, k.during)
	defer calm()
	var running sync.WaitGroup
	for _, s := range k.seats {
		running.Go(func() {
			if err := s.run(whole, storm); err != nil {
				k.fail(fmt.Errorf("%s: %w", s.path, err))
			}
		})
	}
	running.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-storm.Done():
				return
			case <-time.After(3 * time.Second):
			}
			if err := victims[n%len(victims)].die(whole, self); err != nil {
				k.fail(err)
			}
		}
	})
	running.Wait()
	if err := k.gateway.stop(); err != nil {
		k.fail(fmt.Errorf("the gateway's end: %w", err))
	}
	killed, agree := k.compare()
	var ways []string
	for _, way := range slices.Sorted(maps.Keys(k.ways)) {
		ways = append(ways, fmt.Sprintf("%s %d", way, k.ways[way]))
	}
	return fmt.Sprintf("killer: %v, %d sockets at a time, %d killed, %d reports agree (%.2f %%); %s",
		k.during, k.sockets, killed, agree, 100*float64(agree)/float64(max(killed, 1)), strings.Join(ways, ", ")), errors.Join(k.wrong[:min(len(k.wrong), 20)]...)
}

// compare counts killings, and those that were reported as they were.
func (k *killer) compare() (killed, agree int) {
	for _, s := range k.seats {
		reports := k.reports[s.path]
		if len(reports) != len(s.killed) {
			k.fail(fmt.Errorf("%s: %d killed, %d reports", s.path, len(s.killed), len(reports)))
		}
		for i, want := range s.killed {
			killed++
			k.ways[want.way]++
			if i >= len(reports) {
				continue
			}
			got := reports[i]
			how, _ := got["how"].(string)
			why, _ := got["why"].(string)
			at, _ := time.Parse(time.RFC3339Nano, fmt.Sprint(got["time"]))
			if got["by"] != want.by || !slices.Contains(want.hows, how) || why != want.why ||
				at.Before(want.at.Add(-time.Second)) || at.After(want.at.Add(patience)) {
				k.fail(fmt.Errorf("%s: killed %+v; reported %v", s.path, want, got))
				continue
			}
			agree++
		}
	}
	return killed, agree
}

func (k *killer) logged(line map[string]any) {
	switch line["msg"] {
	case "tunnel closed":
		k.mu.Lock()
		k.reports[line["route"]] = append(k.reports[line["route"]], line)
		k.mu.Unlock()
	case "slipswitch: tunnels have closed together", "slipswitch: request failed":
	default:
		if line["level"] != "INFO" {
			k.fail(fmt.Errorf("the gateway's log: %v", line))
		}
	}
}

func (k *killer) fail(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.wrong = append(k.wrong, err)
}

// serve hands the upstream's end of a socket to its seat.
func (k *killer) serve(w http.ResponseWriter, r *http.Request) {
	var n int
	fmt.Sscanf(path.Base(r.URL.Path), "ide-%d", &n)
	if conn, err := accept(w, r); err == nil {
		k.seats[n].arrived <- conn
	}
}

// accept answers an upgrade with a 101.
func accept(w http.ResponseWriter, r *http.Request) (*net.TCPConn, error) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, err
	}
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	_, err = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Accept: "+base64.StdEncoding.EncodeToString(sum[:])+"\r\n\r\n")
	return conn.(*net.TCPConn), err
}

// route puts the seat's route, as a caller wants it to be.
func (s *seat) route(ctx context.Context, change func(*slipswitch.Route)) error {
	r := slipswitch.Route{Path: s.path, Upstreams: slipswitch.To(s.killer.upstreams[0]),
		OnDelete: slipswitch.ClosePolicy{Close: true}, OnUpstreamRemoved: slipswitch.ClosePolicy{Close: true}}
	if s.process != nil {
		r.Upstreams = slipswitch.To(s.process.url)
	}
	if change != nil {
		change(&r)
	}
	return s.killer.gateway.call(ctx, "PUT", "/v1/route?path="+url.QueryEscape(s.path), r, nil)
}

// run opens a socket and ends it, and so on until the storm is over.
func (s *seat) run(ctx, storm context.Context) error {
	for storm.Err() == nil {
		s.busy.Lock()
		far, err := s.open(ctx)
		s.busy.Unlock()
		if err != nil {
			return err
		}
		select {
		case <-time.After(rand.N(3 * time.Second)):
		case <-s.dead:
		case <-storm.Done():
		}
		s.busy.Lock()
		select {
		case <-s.dead: // and noted
		default:
			err = s.kill(ctx, far)
		}
		s.client = nil
		if err == nil {
			err = s.reported(ctx)
		}
		s.busy.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// open opens a socket and returns its upstream's end, if that is in this process.
func (s *seat) open(ctx context.Context) (far *net.TCPConn, err error) {
	dialer := net.Dialer{}
	conn, err := dialer.DialContext(ctx, "tcp", s.killer.gateway.public)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: ide.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n", s.path, base64.StdEncoding.EncodeToString(make([]byte, 16)))
	conn.SetReadDeadline(time.Now().Add(patience))
	response, err := http.ReadResponse(bufio.NewReaderSize(conn, 16), nil) // nothing comes behind it
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusSwitchingProtocols {
		return nil, errors.New(response.Status)
	}
	s.client, s.dead = conn.(*net.TCPConn), make(chan struct{})
	if s.process != nil {
		return nil, nil
	}
	select {
	case far = <-s.arrived:
		far.SetReadDeadline(time.Now().Add(patience))
		return far, nil
	case <-time.After(patience):
		return nil, errors.New("the upstream has no end of a socket that has its 101")
	}
}

const (
	clientText  = "\x81\x85\x00\x00\x00\x00hello"
	clientClose = "\x88\x82\x00\x00\x00\x00\x03\xe8"
	serverClose = "\x88\x02\x03\xe8"
)

// kill ends the seat's socket in a random way, and notes it.
func (s *seat) kill(ctx context.Context, far *net.TCPConn) error {
	gateway := s.killer.gateway
	byPath := "path=" + url.QueryEscape(s.path)
	restore := func() error { return s.route(ctx, nil) }
	reset := func(c *net.TCPConn) func() error {
		return func() error { c.SetLinger(0); return c.Close() }
	}
	say := func(c *net.TCPConn, what string) func() error {
		return func() error { _, err := io.WriteString(c, what); return err }
	}
	with := func(change func(*slipswitch.Route)) func() error {
		return func() error { return s.route(ctx, change) }
	}
	type way struct {
		killing
		do, after func() error
	}
	policy, timeout := []string{"policy"}, []string{"timeout"}
	ways := []way{
		{killing{way: "FIN of the client", by: "client", hows: []string{"FIN"}}, s.client.CloseWrite, nil},
		{killing{way: "reset of the client", by: "client", hows: []string{"RST"}}, reset(s.client), nil},
		{killing{way: "Close frame of the client", by: "client", hows: []string{"close frame"}}, say(s.client, clientClose), nil},
		{killing{way: "API", by: "gateway", hows: policy, why: "admin"}, func() error {
			return gateway.call(ctx, "DELETE", "/v1/tunnels?"+byPath+"&code=4000&reason=killer", nil, nil)
		}, nil},
		{killing{way: "drain", by: "gateway", hows: policy, why: "drain"}, func() error {
			return gateway.call(ctx, "DELETE", "/v1/tunnels?"+byPath+"&window=10ms", nil, nil)
		}, nil},
		{killing{way: "route deleted", by: "gateway", hows: policy, why: "route deleted"}, func() error {
			return gateway.call(ctx, "DELETE", "/v1/route?"+byPath, nil, nil)
		}, restore},
		{killing{way: "idle", by: "gateway", hows: timeout, why: "idle"}, with(func(r *slipswitch.Route) { r.IdleTimeout = 100 * time.Millisecond }), restore},
		{killing{way: "no pong", by: "gateway", hows: timeout, why: "ping"}, with(func(r *slipswitch.Route) { r.PingEvery = time.Second }), restore},
	}
	if far != nil {
		ways = append(ways,
			way{killing{way: "FIN of the upstream", by: "upstream", hows: []string{"FIN"}}, far.CloseWrite, nil},
			way{killing{way: "reset of the upstream", by: "upstream", hows: []string{"RST"}}, reset(far), nil},
			way{killing{way: "Close frame of the upstream", by: "upstream", hows: []string{"close frame"}}, say(far, serverClose), nil},
			way{killing{way: "upstream removed", by: "gateway", hows: policy, why: "upstream removed"},
				with(func(r *slipswitch.Route) { r.Upstreams = slipswitch.To(s.killer.upstreams[1]) }), restore},
		)
		if rand.IntN(2) == 0 { // one that has been used
			io.WriteString(s.client, clientText)
			if _, err := io.ReadFull(far, make([]byte, len(clientText))); err != nil {
				return err
			}
		}
	}
	w := ways[rand.IntN(len(ways))]
	w.at = time.Now()
	s.killed = append(s.killed, w.killing)
	if err := w.do(); err != nil {
		return fmt.Errorf("%s: %w", w.way, err)
	}
	var both sync.WaitGroup
	both.Go(func() { finish(s.client) })
	if far != nil {
		both.Go(func() { finish(far) })
	}
	both.Wait()
	if w.after != nil {
		return w.after()
	}
	return nil
}

// finish waits for a Close frame or the end, and closes. Pings are not answered.
func finish(c *net.TCPConn) {
	defer c.Close()
	c.SetReadDeadline(time.Now().Add(patience))
	var header [2]byte
	for {
		if _, err := io.ReadFull(c, header[:]); err != nil || header[0]&0x0f == 8 {
			return
		}
		if _, err := io.CopyN(io.Discard, c, int64(header[1]&0x7f)); err != nil {
			return
		}
	}
}

// reported waits until the last killing has been reported.
func (s *seat) reported(ctx context.Context) error {
	late := time.Now().Add(patience)
	for {
		s.killer.mu.Lock()
		n := len(s.killer.reports[s.path])
		s.killer.mu.Unlock()
		switch {
		case n >= len(s.killed):
			return nil
		case time.Now().After(late):
			return fmt.Errorf("no report of %+v", s.killed[len(s.killed)-1])
		case ctx.Err() != nil:
			return ctx.Err()
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// start starts the process: this program, as "bench upstream".
func (v *victim) start(self string) error {
	v.cmd = exec.Command(self, "upstream")
	v.cmd.Stderr = os.Stderr
	stdin, err := v.cmd.StdinPipe()
	if err != nil {
		return err
	}
	v.stdin = stdin // it ends with us
	stdout, err := v.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := v.cmd.Start(); err != nil {
		return err
	}
	address, err := bufio.NewReader(stdout).ReadString('\n')
	v.url = "http://" + strings.TrimSpace(address)
	return err
}

func (v *victim) kill() {
	v.cmd.Process.Kill()
	v.cmd.Wait()
	v.stdin.Close()
}

// die kills the process with all the sockets it has, and starts another one.
func (v *victim) die(ctx context.Context, self string) error {
	for _, s := range v.seats {
		s.busy.Lock()
		defer s.busy.Unlock()
		if s.client != nil {
			s.killed = append(s.killed, killing{way: "death of the upstream", by: "upstream", hows: []string{"FIN", "RST"}, at: time.Now()})
			close(s.dead)
		}
	}
	v.kill()
	for _, s := range v.seats {
		if s.client != nil { // a FIN is the cause when the other side has answered it
			finish(s.client)
			if err := s.reported(ctx); err != nil {
				return err
			}
		}
	}
	if err := v.start(self); err != nil {
		return err
	}
	for _, s := range v.seats {
		if err := s.route(ctx, nil); err != nil {
			return err
		}
	}
	return nil
}

// upstream is what a victim does: it takes every upgrade, and leaves with the
// first byte that comes.
func upstream() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr())
	go http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if conn, err := accept(w, r); err == nil {
			io.CopyN(io.Discard, conn, 1)
			conn.Close()
		}
	}))
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}
