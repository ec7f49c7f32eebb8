package main_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/slipswitch/slipswitch/examples/internal/programtest"
)

// An ide is the server of one workspace. Its sockets:
//
//	/echo     answers each message with itself
//	/numbers  sends numbered messages, expects such, and at the end tells the counts
//
// and it answers /events with a stream that does not end, and all else with
// the headers that it was sent.
type ide struct {
	*httptest.Server
	close context.CancelFunc // ends all sockets and streams
}

func newIDE(t testing.TB) *ide {
	ctx, cancel := context.WithCancel(context.Background())
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { json.NewEncoder(w).Encode(r.Header) })
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) { withSocket(ctx, w, r, echo) })
	mux.HandleFunc("/numbers", func(w http.ResponseWriter, r *http.Request) {
		withSocket(ctx, w, r, func(ctx context.Context, conn *websocket.Conn) { answerNumbers(ctx, t, conn) })
	})
	mux.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			fmt.Fprintln(w, "event")
			http.NewResponseController(w).Flush()
			select {
			case <-tick.C:
			case <-r.Context().Done():
				return
			case <-ctx.Done():
				return
			}
		}
	})
	server := &ide{httptest.NewServer(mux), cancel}
	t.Cleanup(func() { cancel(); server.Close() })
	return server
}

func withSocket(ctx context.Context, w http.ResponseWriter, r *http.Request, serve func(context.Context, *websocket.Conn)) {
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer conn.CloseNow()
	serve(ctx, conn)
	if ctx.Err() != nil {
		conn.Close(websocket.StatusGoingAway, "the workspace stops")
	}
}

func echo(ctx context.Context, conn *websocket.Conn) {
	for {
		kind, message, err := conn.Read(ctx)
		if err != nil || conn.Write(ctx, kind, message) != nil {
			return
		}
	}
}

// numbered returns the n-th message of a side, of up to 3 KiB: all bytes are
// known, so that one that is lost, doubled or elsewhere shows.
func numbered(side byte, n int64) []byte {
	message := binary.BigEndian.AppendUint64([]byte{side}, uint64(n))
	return append(message, bytes.Repeat([]byte{side ^ byte(n), byte(n >> 8), 0xff}, int(n*n%1000))...)
}

// numberEvery is a side's pace: 200 sockets must leave the machine some time.
const numberEvery = 100 * time.Millisecond

// counts are what the server of numbers tells at the end.
type counts struct{ Sent, Received int64 }

// answerNumbers sends numbers at its own pace while it reads the client's. When
// that one sends a text, it stops and tells the counts.
func answerNumbers(ctx context.Context, t testing.TB, conn *websocket.Conn) {
	var c counts
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			kind, message, err := conn.Read(ctx)
			if err != nil || kind == websocket.MessageText {
				return
			}
			if !bytes.Equal(message, numbered('c', c.Received)) {
				t.Errorf("the server has received %.32x… as message %d", message, c.Received)
			}
			c.Received++
		}
	}()
	tick := time.NewTicker(numberEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if conn.Write(ctx, websocket.MessageBinary, numbered('s', c.Sent)) != nil {
				<-ended
				return
			}
			c.Sent++
		case <-ended:
			text, _ := json.Marshal(c)
			conn.Write(ctx, websocket.MessageText, text)
			conn.CloseRead(ctx)
			<-ctx.Done()
			return
		}
	}
}

// A numberSocket is the client of numbers.
type numberSocket struct {
	conn           *websocket.Conn
	sent, received atomic.Int64
	stop           chan struct{} // closed by finish
	failed         chan error    // gets the one end
}

func newNumberSocket(t testing.TB, url string) *numberSocket {
	t.Helper()
	conn, _, err := websocket.Dial(t.Context(), url, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := &numberSocket{conn: conn, stop: make(chan struct{}), failed: make(chan error, 1)}
	t.Cleanup(func() { conn.CloseNow() })
	go func() { s.failed <- s.run() }()
	return s
}

// run sends and receives until finish, and returns what was wrong.
func (s *numberSocket) run() error {
	ctx := context.Background()
	go func() {
		tick := time.NewTicker(numberEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if s.conn.Write(ctx, websocket.MessageBinary, numbered('c', s.sent.Load())) != nil {
					return // run says why
				}
				s.sent.Add(1)
			case <-s.stop:
				s.conn.Write(ctx, websocket.MessageText, []byte("end"))
				return
			}
		}
	}()
	for {
		kind, message, err := s.conn.Read(ctx)
		n := s.received.Load()
		switch {
		case err != nil:
			return fmt.Errorf("after %d messages: %w", n, err)
		case kind == websocket.MessageText:
			var c counts
			if err := json.Unmarshal(message, &c); err != nil {
				return err
			}
			if want := (counts{n, s.sent.Load()}); c != want {
				return fmt.Errorf("the server counts %+v; want %+v", c, want)
			}
			return s.conn.CloseNow()
		case !bytes.Equal(message, numbered('s', n)):
			return fmt.Errorf("received %.32x… as message %d", message, n)
		}
		s.received.Add(1)
	}
}

// goOn waits until each of the sockets has sent and received more.
func goOn(t testing.TB, sockets []*numberSocket) {
	t.Helper()
	type mark struct{ sent, received int64 }
	marks := make([]mark, len(sockets))
	for i, s := range sockets {
		marks[i] = mark{s.sent.Load(), s.received.Load()}
	}
	for i, s := range sockets {
		programtest.Eventually(t, fmt.Sprintf("socket %d sends and receives", i), func() bool {
			return s.sent.Load() > marks[i].sent+1 && s.received.Load() > marks[i].received+1
		})
	}
}

// echoes checks that a message comes back.
func echoes(t testing.TB, conn *websocket.Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	message := fmt.Sprint(time.Now().UnixNano())
	if err := conn.Write(ctx, websocket.MessageText, []byte(message)); err != nil {
		t.Fatal(err)
	}
	if _, got, err := conn.Read(ctx); err != nil || string(got) != message {
		t.Fatalf("%q has come back as %q, %v", message, got, err)
	}
}

func dial(t testing.TB, url string, options *websocket.DialOptions) *websocket.Conn {
	t.Helper()
	conn, _, err := websocket.Dial(t.Context(), url, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.CloseNow() })
	return conn
}
