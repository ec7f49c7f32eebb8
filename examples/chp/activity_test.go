package main_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/slipswitch/slipswitch/examples/internal/programtest"
)

// moves says whether what do does moves last_activity of a route.
func (d *driver) moves(path, what string, want bool, do func()) {
	d.Helper()
	was := d.stamp(path)
	for start := time.Now(); time.Since(start) < 3*time.Millisecond; { // stamps have steps
		time.Sleep(time.Millisecond)
	}
	do()
	if want {
		programtest.Eventually(d, what+" moves last_activity", func() bool { return d.stamp(path).After(was) })
	} else if now := d.stamp(path); now.After(was) {
		d.Errorf("%s has moved last_activity from %v to %v", what, was, now)
	}
}

func lastActivity(d *driver) {
	const path = "/active"
	d.put(path, d.target.url())
	d.moves(path, "a look at it", false, func() { d.list("") })
	d.moves(path, "the same POST", true, func() { d.put(path, d.target.url()) })
	d.moves(path, "a request", true, func() { d.get(200, path+"/") })
	d.moves(path, "a POST", true, func() { d.send(200, "POST", path+"/", "a body") })
	for _, status := range []int{302, 404, 403, 500} {
		d.moves(path, fmt.Sprintf("the answer %d", status), false, func() { d.get(status, path+"/", "X-Do", fmt.Sprint(status)) })
	}
	reader, writer := io.Pipe()
	r, _ := http.NewRequestWithContext(d.Context(), "POST", d.public.url(path+"/"), reader)
	r.Host = host
	uploaded := make(chan error)
	go func() {
		response, err := d.public.client().Do(r)
		if err == nil {
			response.Body.Close()
		}
		uploaded <- err
	}()
	for range 3 {
		d.moves(path, "a part of an upload", true, func() { io.WriteString(writer, "part") })
	}
	writer.Close()
	if err := <-uploaded; err != nil {
		d.Error(err)
	}
	conn, _ := d.dial(path + "/ws")
	d.moves(path, "a message", true, func() { d.talk(conn, "x") })
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	d.moves(path, "a ping", true, func() {
		reading := conn.CloseRead(ctx) // its goroutine takes the pong
		if err := conn.Ping(reading); err != nil {
			d.Error(err)
		}
	})
	gone := startTarget(d, "gone", "", false)
	d.put(path+"/down", gone.url())
	gone.Close()
	d.moves(path+"/down", "a target that is down", false, func() { d.get(503, path+"/down") })
}

// A tunnel is at its route's path, whatever route stands there.
func lastActivityOfPath(d *driver) {
	const path = "/active-path"
	d.put(path, d.target.url())
	conn, _ := d.dial(path + "/ws")
	d.rest(204, "DELETE", d.route(path), "")
	d.talk(conn, "nobody counts this")
	d.put(path, d.second.url())
	d.moves(path, "a message, deleted and put again", true, func() { d.talk(conn, "x") })
	d.put(path, d.target.url())
	d.moves(path, "a message, replaced", true, func() { d.talk(conn, "x") })
}
