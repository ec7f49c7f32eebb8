package slipswitch

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/slipswitch/slipswitch/internal/deadline"
	"github.com/slipswitch/slipswitch/internal/dial"
	"github.com/slipswitch/slipswitch/internal/http1"
)

// An http2Client is net/http's HTTP/2: for h2c upstreams, and for https upstreams
// that choose it. These are asked by HTTP/1.1 first, as long as there is no
// connection to them, and what they choose is handed over to the transport.
type http2Client struct {
	transports    *transports
	berths        berths
	plain, secure http.Transport
}

// errNotHTTP2 says that an upstream has chosen HTTP/1.1, which it had not before.
var errNotHTTP2 = errors.New("the upstream no longer speaks HTTP/2")

func (c *http2Client) init(s *transports) {
	c.transports = s
	for _, t := range []*http.Transport{&c.plain, &c.secure} {
		t.Proxy = nil // never by the gateway's environment
		t.DisableCompression = true
		t.DialContext = c.dial
		t.DialTLSContext = c.dial
		t.MaxIdleConns = 4096
		t.MaxIdleConnsPerHost = 64
		t.IdleConnTimeout = 90 * time.Second
		t.MaxResponseHeaderBytes = 1 << 20
		t.HTTP2 = &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout}
	}
	c.plain.Protocols = new(http.Protocols)
	c.plain.Protocols.SetUnencryptedHTTP2(true)
	c.secure.ForceAttemptHTTP2 = true
}

func (c *http2Client) closeIdle() {
	c.plain.CloseIdleConnections()
	c.secure.CloseIdleConnections()
}

// connected reports whether there are connections to an upstream, or just to be.
func (c *http2Client) connected(key http1.Key) bool { return c.berths.has(key) }

// dial is what a transport dials by: to the upstream that stands in the berth of
// that name.
func (c *http2Client) dial(ctx context.Context, _, name string) (net.Conn, error) {
	b := c.berths.takeNamed(name)
	if b == nil {
		return nil, &dial.Error{Err: context.Canceled}
	}
	conn, err := c.connect(ctx, b.key)
	if err != nil {
		c.berths.leave(b)
		return nil, err
	}
	under := conn
	if secure, ok := conn.(*tls.Conn); ok {
		under = secure.NetConn()
	}
	under.(*berthed).leave = func() { c.berths.leave(b) }
	return conn, nil
}

func (c *http2Client) connect(ctx context.Context, key http1.Key) (net.Conn, error) {
	if h, ok := ctx.Value(handoverKey{}).(*handover); ok {
		if conn := h.take(); conn != nil {
			return conn, nil
		}
	}
	conn, err := c.transports.dial(ctx, key, func(conn net.Conn) net.Conn { return &berthed{Conn: conn} }, "h2", "http/1.1")
	if secure, ok := conn.(*tls.Conn); ok && secure.ConnectionState().NegotiatedProtocol != "h2" {
		secure.Close()
		return nil, errNotHTTP2
	}
	return conn, err
}

// A handover is a connection that a request has brought with it. The transport may
// have another by then.
type handover struct {
	mu   sync.Mutex
	conn *tls.Conn // nil: taken
}

type handoverKey struct{}

func (h *handover) take() *tls.Conn {
	h.mu.Lock()
	defer h.mu.Unlock()
	conn := h.conn
	h.conn = nil
	return conn
}

func (h *handover) close() {
	if conn := h.take(); conn != nil {
		conn.Close()
	}
}

// roundTrip sends a request. The connection is one that has just been made; nil: none.
func (c *http2Client) roundTrip(ctx context.Context, key http1.Key, q *http1.Request, conn *tls.Conn) (*reply, error) {
	if conn != nil {
		h := &handover{conn: conn}
		defer h.close()
		ctx = context.WithValue(ctx, handoverKey{}, h)
	}
	b := c.berths.take(key)
	defer c.berths.leave(b) // the connection has it now
	transport, scheme := &c.plain, "http"
	if key.Scheme == schemes[schemeHTTPS] {
		transport, scheme = &c.secure, "https"
	}
	x := newHTTP2Exchange(ctx, q)
	r := &http.Request{
		Method: q.Method, URL: urlOf(scheme, b.name, q), Host: q.Host, Header: maps.Clone(q.Header),
		ContentLength: q.ContentLength, Trailer: q.Trailer,
	}
	maps.DeleteFunc(r.Header, func(name string, _ []string) bool { return framing[name] })
	if r.Header["User-Agent"] == nil {
		r.Header["User-Agent"] = []string{""} // or the transport would send its own
	}
	if q.ContentLength != 0 {
		r.Body = &http2Upload{from: q.Body, exchange: x, closed: make(chan struct{})}
	}
	response, err := transport.RoundTrip(r.WithContext(x.traced()))
	x.answered()
	if err == nil && (response.StatusCode < 200 || response.StatusCode > 999) {
		response.Body.Close()
		err = errStatus
	}
	if err != nil {
		if x.ctx.Err() != nil {
			err = context.Cause(x.ctx)
		}
		x.end()
		return nil, err
	}
	return &reply{response.StatusCode, response.Header, &response.Trailer,
		&http2Body{response.Body, x, response.ContentLength}, nil}, nil
}

// urlOf returns where to send a request: the path exactly as it is spelt.
func urlOf(scheme, host string, q *http1.Request) *url.URL {
	u := &url.URL{Scheme: scheme, Host: host, RawQuery: q.RawQuery, ForceQuery: q.ForceQuery}
	if strings.HasPrefix(q.Path, "//") {
		u.RawPath = q.Path
		u.Path, _ = url.PathUnescape(q.Path)
	} else {
		u.Opaque = q.Path // net/url would escape some bytes anew
	}
	return u
}

// An http2Exchange watches over a request's timeouts, which a transport knows not.
type http2Exchange struct {
	request *http1.Request
	ctx     context.Context
	cancel  context.CancelCauseFunc

	header, stall, stream deadline.Timer

	mu   sync.Mutex // of Interim, which the transport calls at any time
	done bool       // the final response is there, or none will be
}

func newHTTP2Exchange(ctx context.Context, q *http1.Request) *http2Exchange {
	x := &http2Exchange{request: q}
	x.ctx, x.cancel = context.WithCancelCause(ctx)
	x.header.Expire = func() { x.cancel(http1.ErrHeaderTimeout) }
	x.stall.Expire = func() { x.cancel(http1.ErrStallTimeout) }
	x.stream.Expire = func() { x.cancel(http1.ErrStreamTimeout) }
	return x
}

// traced returns the context for the transport.
func (x *http2Exchange) traced() context.Context {
	return httptrace.WithClientTrace(x.ctx, &httptrace.ClientTrace{
		WroteRequest: func(httptrace.WroteRequestInfo) { x.header.Arm(x.request.HeaderTimeout) },
		Got1xxResponse: func(status int, header textproto.MIMEHeader) error {
			x.mu.Lock()
			defer x.mu.Unlock()
			if x.done || x.request.Interim == nil || status == http.StatusContinue {
				return nil
			}
			return x.request.Interim(status, http.Header(header))
		},
	})
}

// answered ends the wait for the response's header.
func (x *http2Exchange) answered() {
	x.header.Disarm()
	x.mu.Lock()
	defer x.mu.Unlock()
	x.done = true
}

func (x *http2Exchange) end() {
	x.stall.Disarm()
	x.stream.Disarm()
	x.cancel(nil)
}

// An http2Upload is a request's body as the transport reads it. It notices an
// upstream that takes nothing: the time from the end of one read to the begin of
// the next is the time that writing takes.
type http2Upload struct {
	from     io.Reader
	exchange *http2Exchange
	closed   chan struct{}
	once     sync.Once
	ended    bool
}

func (b *http2Upload) Read(p []byte) (int, error) {
	if b.ended {
		return 0, io.EOF // the transport looks once more behind the end
	}
	b.exchange.stall.Pause()
	n, err := b.read(p)
	if err == nil {
		b.exchange.stall.Arm(b.exchange.request.StallTimeout)
		return n, nil
	}
	b.ended = err == io.EOF
	b.exchange.stall.Disarm()
	return n, err
}

// read waits for the client on a goroutine of its own, since Close must not wait:
// an upstream may have said all before a client that only listens says a word. What
// that reads later is for nobody, and it ends with the request.
func (b *http2Upload) read(p []byte) (int, error) {
	type part struct {
		n   int
		err error
	}
	buf := copyBuffers.Get()
	came := make(chan part, 1)
	go func() {
		n, err := b.from.Read(buf[:min(len(p), len(buf))])
		came <- part{n, err}
	}()
	select {
	case part := <-came:
		defer copyBuffers.Put(buf)
		return copy(p, buf[:part.n]), part.err
	case <-b.closed:
		return 0, http.ErrBodyReadAfterClose
	}
}

func (b *http2Upload) Close() error {
	b.once.Do(func() { close(b.closed) })
	return nil
}

// An http2Body is a response's body, each part of which is waited for only so long.
type http2Body struct {
	io.ReadCloser
	exchange *http2Exchange
	length   int64
}

func (b *http2Body) Read(p []byte) (int, error) {
	x := b.exchange
	x.stream.Arm(x.request.StreamTimeout)
	n, err := b.ReadCloser.Read(p)
	x.stream.Pause()
	if err != nil && err != io.EOF {
		err = cmp.Or(context.Cause(x.ctx), err)
	}
	return n, err
}

// WriteTo flushes each part that it writes: the next may be far away.
func (b *http2Body) WriteTo(w io.Writer) (written int64, err error) {
	flusher, _ := w.(interface{ FlushError() error })
	buf := copyBuffers.Get()
	defer copyBuffers.Put(buf)
	if flusher != nil && b.length != 0 {
		if err := flusher.FlushError(); err != nil { // the header
			return 0, err
		}
	}
	for {
		n, err := b.Read(buf)
		if n > 0 {
			n, err := w.Write(buf[:n])
			written += int64(n)
			if err == nil && flusher != nil {
				err = flusher.FlushError()
			}
			if err != nil {
				return written, err
			}
		}
		if err == io.EOF {
			return written, nil
		} else if err != nil {
			return written, err
		}
	}
}

func (b *http2Body) Close() error {
	err := b.ReadCloser.Close()
	b.exchange.end()
	return err
}

// copyBuffers are shared by all proxies of the process: 32 KiB each.
var copyBuffers bufferPool

type bufferPool struct{ pool sync.Pool }

func (b *bufferPool) Get() []byte {
	if buf, ok := b.pool.Get().(*[32 << 10]byte); ok {
		return buf[:]
	}
	return make([]byte, 32<<10)
}

func (b *bufferPool) Put(buf []byte) { b.pool.Put((*[32 << 10]byte)(buf)) }
