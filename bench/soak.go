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
	"os"
	"path"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/slipswitch/slipswitch"
)

// A soak keeps a number of tunnels open through a gateway. Both ends of each
// send frames of all sizes, at random times, and know what they must receive.
// Meanwhile
//
//   - routes change, those of the tunnels among them,
//   - each second one in a hundred tunnels ends: by a reset or a close of
//     either end in the middle of everything, or as it should, by a half-close
//     of one end that the other answers,
//   - now and then a backend dies with all its tunnels, and comes back,
//   - some ends read slowly.
//
// What ends is opened again. Twice, near the beginning and at the end, all hold
// their breath, and what the gateway uses for the same number of quiet tunnels
// is compared.
type soak struct {
	during  time.Duration
	tunnels int
	changes int // of routes, each second
	race    bool

	gateway  *gateway
	backends []*backend
	busy     sync.RWMutex // read-locked by whoever does something; locked: silence
	killing  sync.Mutex   // held by whoever ends tunnels; locked: all that are open stay so

	mu      sync.Mutex
	known   map[uint64]*tunnel // by id: those being opened, too
	open    map[uint64]*tunnel
	reports map[any]int // close reports, by whose end it was
	wrong   []error

	ids, opened, killed, died, refused, changed, bytes, messages atomic.Int64
}

const (
	routesPerBackend = 10
	patience         = 30 * time.Second // for what should happen at once
)

// run returns a line of figures, and what was wrong.
func (s *soak) run(ctx context.Context) (line string, err error) {
	s.known, s.open, s.reports = map[uint64]*tunnel{}, map[uint64]*tunnel{}, map[any]int{}
	dir, err := os.MkdirTemp("", "soak")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	program, err := buildGateway(ctx, dir, s.race)
	if err != nil {
		return "", err
	}
	whole, cancel := context.WithCancel(ctx)
	defer cancel() // whatever happens, the gateway ends
	if s.gateway, err = startGateway(whole, program, s.logged); err != nil {
		return "", err
	}
	go func() {
		<-s.gateway.ended
		cancel()
	}()
	for i := range max(4, s.tunnels/100) {
		b := &backend{soak: s, address: fmt.Sprintf("127.0.1.%d:0", 1+i%250)}
		if err := b.start(); err != nil {
			return "", err
		}
		b.address = b.listener.Addr().String() // also when it comes back
		defer b.kill()
		s.backends = append(s.backends, b)
	}
	if err := s.change(whole, s.ownRoutes(0, s.routes())...); err != nil {
		return "", err
	}
	empty, err := s.gateway.figures(whole)
	if err != nil {
		return "", err
	}

	storm, calm := context.WithCancel(whole)
	defer calm()
	var seats, others sync.WaitGroup
	for i := range s.tunnels {
		seats.Go(func() { s.keepOpen(storm, i) })
	}
	others.Go(func() { s.changeRoutes(storm) })
	others.Go(func() { s.endTunnels(storm) })
	var early, late figures
	begin := time.Now()
	for _, phase := range []struct {
		until time.Duration
		then  *figures
	}{{s.during / 4, &early}, {s.during, &late}} {
		select {
		case <-time.After(time.Until(begin.Add(phase.until))):
		case <-whole.Done():
			return "", s.failed(errors.New("the gateway is gone"), ctx.Err())
		}
		if *phase.then, err = s.quiet(whole); err != nil {
			return "", s.failed(err)
		}
	}
	took := time.Since(begin)

	calm()
	others.Wait()
	s.mu.Lock()
	for _, t := range s.open {
		t.ends[rand.IntN(2)].finish()
	}
	s.mu.Unlock()
	seats.Wait()
	s.await(whole, "the gateway has its descriptors back", func() bool {
		f, err := s.gateway.figures(whole)
		return err == nil && f.Tunnels == 0 && f.descriptors <= empty.descriptors+slackDescriptors && f.pipes <= empty.pipes
	})
	if err := s.gateway.stop(); err != nil {
		s.fail("the gateway's end: %w", err)
	}
	s.check(early, late)
	mib := func(n int) float64 { return float64(n) / (1 << 20) }
	return fmt.Sprintf("soak: %v, %d tunnels, %d opened, %d of them killed, also by %d deaths of backends, %d route changes, %.1f GiB in %d messages, %d wrong; "+
		"goroutines %d → %d, descriptors %d → %d, pipes %d → %d, heap %.1f → %.1f MiB, RSS %.1f → %.1f MiB, %.2f of a core",
		took.Round(time.Second), s.tunnels, s.opened.Load(), s.killed.Load(), s.died.Load(), s.changed.Load(),
		float64(s.bytes.Load())/(1<<30), s.messages.Load(), len(s.wrong),
		early.Goroutines, late.Goroutines, early.descriptors, late.descriptors, early.pipes, late.pipes,
		mib(early.Heap), mib(late.Heap), mib(early.resident), mib(late.resident), (late.cpu-empty.cpu).Seconds()/took.Seconds()), s.failed()
}

const slackDescriptors = 8 // connections of the admin API

// check compares the two silences, and counts reports.
func (s *soak) check(early, late figures) {
	for _, f := range []struct {
		what                 string
		early, late, allowed int
	}{
		{"goroutines", early.Goroutines, late.Goroutines, early.Goroutines + slackDescriptors},
		{"descriptors", early.descriptors, late.descriptors, early.descriptors + slackDescriptors},
		{"pipes", early.pipes, late.pipes, 0},
		{"bytes of heap", early.Heap, late.Heap, early.Heap*5/4 + 4<<20},
		{"bytes resident", early.resident, late.resident, early.resident*5/4 + 8<<20},
	} {
		if f.late > f.allowed {
			s.fail("%s have grown from %d to %d", f.what, f.early, f.late)
		}
	}
	total := 0
	for by, n := range s.reports {
		if total += n; by != "client" && by != "upstream" {
			s.fail("%d tunnels were ended by: %v", n, by)
		}
	}
	if opened := int(s.opened.Load()); total != opened {
		s.fail("%d close reports of %d tunnels", total, opened)
	}
}

// logged takes a line of the gateway's log.
func (s *soak) logged(line map[string]any) {
	switch line["msg"] {
	case "tunnel closed":
		s.mu.Lock()
		s.reports[line["by"]]++
		s.mu.Unlock()
	case "slipswitch: tunnels have closed together", "slipswitch: request failed": // clients judge the latter
	default:
		if line["level"] != "INFO" {
			s.fail("the gateway's log: %v", line)
		}
	}
}

func (s *soak) fail(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wrong = append(s.wrong, fmt.Errorf(format, args...))
}

// failed returns all that was wrong, the first few in full.
func (s *soak) failed(more ...error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := append(slices.Clone(s.wrong), more...)
	if n := len(all); n > 20 {
		all = append(all[:20], fmt.Errorf("and %d more", n-20))
	}
	return errors.Join(all...)
}

// await waits until something holds.
func (s *soak) await(ctx context.Context, what string, holds func() bool) {
	late := time.After(patience)
	for tick := time.NewTicker(50 * time.Millisecond); !holds(); {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		case <-late:
			s.fail("not within %v: %s", patience, what)
			return
		}
	}
}

// quiet returns what the gateway uses while all tunnels are open, all that was
// sent has arrived, and nothing happens.
func (s *soak) quiet(ctx context.Context) (figures, error) {
	s.killing.Lock()
	defer s.killing.Unlock()
	s.await(ctx, "all tunnels are open", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.open) == s.tunnels && len(s.known) == s.tunnels
	})
	s.busy.Lock()
	defer s.busy.Unlock()
	s.mu.Lock()
	open := slices.Collect(maps.Values(s.open))
	s.mu.Unlock()
	s.await(ctx, "all that was sent has arrived", func() bool {
		return !slices.ContainsFunc(open, func(t *tunnel) bool {
			return t.ends[0].sent.Load() != t.ends[1].received.Load() || t.ends[1].sent.Load() != t.ends[0].received.Load()
		})
	})
	select {
	case <-time.After(2 * time.Second): // pipes are kept for a moment
	case <-ctx.Done():
	}
	return s.gateway.figures(ctx)
}

// Routes

func (s *soak) routes() int { return len(s.backends) * routesPerBackend }

// ownRoutes returns changes that put the tunnels' routes from i on.
func (s *soak) ownRoutes(i, n int) (list []slipswitch.Change) {
	for range n {
		list = append(list, slipswitch.Change{Put: &slipswitch.Route{
			Path: ownPath(i % s.routes()), StripPath: true, Upstreams: slipswitch.To("http://" + s.backends[i%len(s.backends)].address),
			Labels: map[string]string{"change": fmt.Sprint(s.changed.Load())},
		}})
		i++
	}
	return list
}

func ownPath(i int) string { return fmt.Sprintf("/webapp-01/ide-%d", i) }

// changeRoutes makes a batch of changes ten times a second: routes that no
// tunnel uses come, change and go, and are never seen again; half of the
// changes are to the routes of tunnels, one of which is missing until the next
// batch.
func (s *soak) changeRoutes(ctx context.Context) {
	size := max(s.changes/10, 4)
	tick := time.NewTicker(time.Second * time.Duration(size) / time.Duration(s.changes))
	defer tick.Stop()
	for round := 0; ; round++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		batch := s.ownRoutes(round*(size/2-1), size/2-1)
		batch = append(batch, slipswitch.Change{Delete: &slipswitch.Key{Path: ownPath(round * (size/2 - 1) % s.routes())}})
		if round > 0 {
			batch = append(batch, s.ownRoutes((round-1)*(size/2-1), 1)...)
		}
		for i := 0; len(batch) < size; i++ {
			other := slipswitch.Route{Path: fmt.Sprintf("/webapp-02/ide-%d-%d", round/3, i), Upstreams: slipswitch.To("http://127.0.2.1:8080"),
				Labels: map[string]string{"round": fmt.Sprint(round)}}
			if round%3 < 2 {
				batch = append(batch, slipswitch.Change{Put: &other})
			} else {
				batch = append(batch, slipswitch.Change{Delete: &slipswitch.Key{Path: other.Path}})
			}
		}
		s.busy.RLock()
		err := s.change(ctx, batch...)
		s.busy.RUnlock()
		if err != nil && ctx.Err() == nil {
			s.fail("%w", err)
		}
	}
}

func (s *soak) change(ctx context.Context, changes ...slipswitch.Change) error {
	s.changed.Add(int64(len(changes)))
	return s.gateway.call(ctx, "POST", "/v1/batch", map[string]any{"changes": changes}, nil)
}

// Tunnels

// A tunnel is one as its ends see it.
type tunnel struct {
	id      uint64
	backend *backend
	ends    [2]end // the client, the upstream
	killed  atomic.Bool
	done    chan struct{} // closed when the upstream's end is
}

// An end sends what it makes itself, and receives what the other one makes.
type end struct {
	t              *tunnel
	conn           *net.TCPConn
	sent, received atomic.Int64
	stop           chan struct{} // closed by finish
	finish         func()        // half-closes the connection behind the message that is being sent
}

func (s *soak) newTunnel(b *backend) *tunnel {
	t := &tunnel{id: uint64(s.ids.Add(1)), backend: b, done: make(chan struct{})}
	for i := range t.ends {
		e := &t.ends[i]
		e.t, e.stop = t, make(chan struct{})
		e.finish = sync.OnceFunc(func() { close(e.stop) })
	}
	s.mu.Lock()
	s.known[t.id] = t
	s.mu.Unlock()
	return t
}

func (s *soak) forget(t *tunnel) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.known, t.id)
	delete(s.open, t.id)
}

// keepOpen opens a tunnel, and another when it has ended, and so on.
func (s *soak) keepOpen(ctx context.Context, seat int) {
	for ctx.Err() == nil {
		route := seat % s.routes()
		t := s.newTunnel(s.backends[route%len(s.backends)])
		s.busy.RLock()
		in, sends, err := s.dial(ctx, t, route)
		s.busy.RUnlock()
		switch {
		case err == errRefused: // the route or the backend will be back
			s.refused.Add(1)
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
			}
		case err != nil && ctx.Err() == nil:
			s.fail("opening tunnel %d: %w", t.id, err)
		case err == nil:
			s.live(ctx, t, in, sends)
		}
		s.forget(t)
	}
}

// errRefused: 404 or 502, as it has to be now and then.
var errRefused = errors.New("refused")

// dial is a client's handshake. A frame follows at once.
func (s *soak) dial(ctx context.Context, t *tunnel, route int) (in *bufio.Reader, sends *stream, err error) {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 3, byte(1+t.id%250))}}
	conn, err := dialer.DialContext(ctx, "tcp", s.gateway.public)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			conn.Close()
		}
	}()
	e := &t.ends[0]
	e.conn = conn.(*net.TCPConn)
	if t.id%4 == 0 {
		e.conn.SetReadBuffer(16 << 10)
	}
	sends = newStream(t.id, 0)
	request := fmt.Sprintf("GET %s/%d HTTP/1.1\r\nHost: ide.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n", ownPath(route), t.id, base64.StdEncoding.EncodeToString(make([]byte, 16)))
	if err := s.send(e, sends, request); err != nil {
		return nil, nil, err
	}
	conn.SetReadDeadline(time.Now().Add(patience))
	in = bufio.NewReader(conn)
	response, err := http.ReadResponse(in, nil)
	if err != nil {
		return nil, nil, err
	}
	conn.SetReadDeadline(time.Time{})
	switch response.StatusCode {
	case http.StatusSwitchingProtocols:
		return in, sends, nil
	case http.StatusNotFound, http.StatusBadGateway:
		return nil, nil, errRefused
	}
	return nil, nil, errors.New(response.Status)
}

// live is a client's end from the 101 to the end of both, and what has to be
// true then.
func (s *soak) live(ctx context.Context, t *tunnel, in *bufio.Reader, sends *stream) {
	s.opened.Add(1)
	s.mu.Lock()
	s.open[t.id] = t
	s.mu.Unlock()
	if ctx.Err() != nil {
		t.ends[0].finish() // too late for run to have seen it
	}
	s.carry(&t.ends[0], in, sends, newStream(t.id, 1))
	select {
	case <-t.done:
	case <-time.After(patience):
		s.fail("tunnel %d: the upstream's end is open %v after the client's", t.id, patience)
		return
	}
	for i := range t.ends {
		sent, received := t.ends[i].sent.Load(), t.ends[1-i].received.Load()
		s.bytes.Add(received)
		if received > sent || received < sent && !t.killed.Load() {
			s.fail("tunnel %d: %d bytes sent by its end %d, %d received", t.id, sent, i, received)
		}
	}
}

// carry sends and receives until both have ended, and closes.
func (s *soak) carry(e *end, in io.Reader, sends, receives *stream) {
	var both sync.WaitGroup
	both.Go(func() {
		err := s.receive(e, in, receives)
		if err != nil && !e.t.killed.Load() {
			s.fail("tunnel %d, receiving after %d bytes: %w", e.t.id, e.received.Load(), err)
		}
		e.finish()
	})
	for {
		select {
		case <-time.After(time.Duration(rand.ExpFloat64() * float64(4*time.Second))):
			s.busy.RLock()
			err := s.send(e, sends, "")
			s.busy.RUnlock()
			if err == nil {
				continue
			}
			if !e.t.killed.Load() {
				s.fail("tunnel %d, sending after %d bytes: %w", e.t.id, e.sent.Load(), err)
			}
		case <-e.stop:
		}
		break
	}
	e.conn.CloseWrite()
	stuck := time.AfterFunc(patience, func() {
		s.fail("tunnel %d: an end has not received the other's for %v", e.t.id, patience)
		e.conn.Close()
	})
	both.Wait()
	stuck.Stop()
	e.conn.Close()
}

// send sends the next frame, with something else in front of it.
func (s *soak) send(e *end, sends *stream, before string) error {
	header, payload := sends.frame()
	parts := net.Buffers{[]byte(before), header, payload}
	n, err := parts.WriteTo(e.conn)
	e.sent.Add(max(0, n-int64(len(before))))
	s.messages.Add(1)
	return err
}

// receive reads until the other end's end, and compares. Now and then it takes
// a rest.
func (s *soak) receive(e *end, in io.Reader, receives *stream) error {
	buffer := make([]byte, 16<<10)
	for {
		n, err := in.Read(buffer)
		if !receives.goesOn(buffer[:n]) {
			s.fail("tunnel %d: other bytes than were sent, %d bytes in", e.t.id, e.received.Load())
			e.conn.Close()
			return errors.New("given up")
		}
		e.received.Add(int64(n))
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		case rand.IntN(200) == 0:
			time.Sleep(rand.N(time.Second))
		}
	}
}

// endTunnels ends one in a hundred tunnels each second.
func (s *soak) endTunnels(ctx context.Context) {
	tick := time.NewTicker(time.Second * 100 / time.Duration(s.tunnels))
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		s.killing.Lock()
		if n%max(s.tunnels/10, 1) == 0 { // each ten seconds
			b := s.backends[rand.IntN(len(s.backends))]
			s.died.Add(1)
			b.kill()
			time.Sleep(rand.N(time.Second))
			if err := b.start(); err != nil {
				s.fail("%w", err)
			}
		}
		s.mu.Lock()
		for _, t := range s.open { // any
			t.end(s, rand.IntN(2), rand.IntN(3))
			break
		}
		s.mu.Unlock()
		s.killing.Unlock()
	}
}

// end ends a tunnel at one of its ends: by a reset, by a close, or properly.
func (t *tunnel) end(s *soak, side, how int) {
	e := &t.ends[side]
	if how == 2 {
		e.finish()
		return
	}
	if !t.killed.Swap(true) {
		s.killed.Add(1)
	}
	if how == 0 {
		e.conn.SetLinger(0)
	}
	e.conn.Close()
}

// Backends

// A backend is the upstream of some routes.
type backend struct {
	soak     *soak
	address  string
	listener net.Listener
}

func (b *backend) start() (err error) {
	if b.listener, err = net.Listen("tcp", b.address); err != nil {
		return err
	}
	go func(l net.Listener) {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go b.serve(conn.(*net.TCPConn))
		}
	}(b.listener)
	return nil
}

// kill does what a process's death does.
func (b *backend) kill() {
	b.listener.Close()
	b.soak.mu.Lock()
	defer b.soak.mu.Unlock()
	for _, t := range b.soak.known {
		if t.backend == b && t.ends[1].conn != nil {
			t.end(b.soak, 1, 0)
		}
	}
}

// serve is an upstream's end. A frame follows its 101 at once.
func (b *backend) serve(conn *net.TCPConn) {
	in := bufio.NewReader(conn)
	request, err := http.ReadRequest(in)
	if err != nil {
		conn.Close()
		return
	}
	id, _ := strconv.ParseUint(path.Base(request.URL.Path), 10, 64)
	b.soak.mu.Lock()
	t := b.soak.known[id]
	if t != nil {
		t.ends[1].conn = conn
	}
	b.soak.mu.Unlock()
	if t == nil {
		b.soak.fail("a handshake for no tunnel: %s", request.URL)
		conn.Close()
		return
	}
	defer close(t.done)
	if t.id%8 < 2 {
		conn.SetReadBuffer(16 << 10)
	}
	sum := sha1.Sum([]byte(request.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	sends := newStream(id, 1)
	if err := b.soak.send(&t.ends[1], sends, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Accept: "+base64.StdEncoding.EncodeToString(sum[:])+"\r\n\r\n"); err != nil && !t.killed.Load() {
		b.soak.fail("tunnel %d: its 101: %w", id, err)
	}
	b.soak.carry(&t.ends[1], in, sends, newStream(id, 0))
}
