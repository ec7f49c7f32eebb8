package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/coder/websocket"
)

// A tab is one socket of one page. Messages to it wait in a queue, so that a slow
// tab delays no other.
type tab struct {
	person person // its caret is guarded by the workspace
	queue  chan []byte
	cancel context.CancelFunc
}

// A room is what a tab joins.
type room interface {
	join(*tab)
	leave(*tab)
	receive(*tab, received) error
}

// A received message is an edit or a caret for the workspace, or a click on a
// button.
type received struct {
	Type string `json:"type"`
	edit
	Caret int    `json:"caret"`
	Way   string `json:"way"` // how to end sockets
}

const maxQueue = 1024 // messages

// serveSocket runs a tab from its handshake to its end. In any room, the tab gets
// the state of the board.
func serveSocket(w http.ResponseWriter, r *http.Request, b *board, in room) {
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return // answered
	}
	defer conn.CloseNow()
	conn.SetReadLimit(4 * maxFile)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()

	query := r.URL.Query()
	t := &tab{queue: make(chan []byte, maxQueue), cancel: cancel}
	b.enter(t, query.Get("tab"), query.Get("name"))
	defer b.leave(t)
	in.join(t)
	defer in.leave(t)

	written := make(chan struct{})
	go func() {
		defer close(written)
		defer cancel()
		t.write(ctx, conn)
	}()
	defer func() { <-written }()
	defer cancel()
	if err := t.read(ctx, conn, b, in); err != nil {
		conn.Close(websocket.StatusPolicyViolation, err.Error())
	}
}

// read handles the messages of the tab until its socket ends, or one is invalid.
func (t *tab) read(ctx context.Context, conn *websocket.Conn, b *board, in room) error {
	for {
		_, encoded, err := conn.Read(ctx)
		if err != nil {
			return nil
		}
		var m received
		if err := json.Unmarshal(encoded, &m); err != nil {
			return fmt.Errorf("not a message: %.80s", err)
		}
		switch m.Type {
		case "crowd":
			b.demo.crowd.start()
			continue
		case "end":
			b.demo.ender.end(m.Way)
			continue
		}
		if err := in.receive(t, m); err != nil {
			return err
		}
	}
}

// write sends queued messages, and pings.
func (t *tab) write(ctx context.Context, conn *websocket.Conn) {
	ping := time.NewTicker(pingEvery)
	defer ping.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case message := <-t.queue:
			err = conn.Write(ctx, websocket.MessageText, message)
		case <-ping.C:
			err = conn.Ping(ctx)
		}
		if err != nil {
			return
		}
	}
}

func (t *tab) send(message any) { t.sendEncoded(encode(message)) }

// sendEncoded ends a tab that does not keep up. It reconnects, and gets the whole
// text.
func (t *tab) sendEncoded(message []byte) {
	select {
	case t.queue <- message:
	default:
		t.cancel()
	}
}

func encode(message any) []byte {
	encoded, err := json.Marshal(message)
	if err != nil {
		panic(err) // a plain struct can always be encoded
	}
	return encoded
}
