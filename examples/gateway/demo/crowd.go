package demo

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/slipswitch/slipswitch"
)

// A crowd is a number of other workspaces that come and go. Each is put and
// deleted by changes of its own.
type crowd struct {
	demo     *Demo
	upstream string
	pressed  chan struct{}

	mu     sync.Mutex
	remain int
}

const (
	crowdSize  = 100
	crowdPause = 15 * time.Millisecond // between two changes, slow enough to watch
)

func (c *crowd) init() {
	c.pressed = make(chan struct{}, 1)
	c.demo.running.Go(c.run)
}

// start starts the crowd, unless it is running.
func (c *crowd) start() {
	select {
	case c.pressed <- struct{}{}:
	default:
	}
}

// left returns the number of changes still to come.
func (c *crowd) left() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.remain
}

func (c *crowd) run() {
	for {
		select {
		case <-c.demo.ctx.Done():
			return
		case <-c.pressed:
			c.comeAndGo()
		}
		select { // clicks in the meantime
		case <-c.pressed:
		default:
		}
	}
}

func (c *crowd) comeAndGo() {
	pace := time.NewTicker(crowdPause)
	defer pace.Stop()
	paths := make([]string, crowdSize)
	for i := range paths {
		paths[i] = crowdPath + strings.ToLower(rand.Text()[:20])
	}
	for left := 2 * crowdSize; left > 0; left-- {
		c.mu.Lock()
		c.remain = left
		c.mu.Unlock()
		path := paths[(2*crowdSize-left)%crowdSize]
		c.demo.Router.Update(func(tx *slipswitch.Txn) error {
			if left > crowdSize {
				tx.Put(slipswitch.Route{Path: path, StripPath: true, Upstreams: slipswitch.To(c.upstream),
					Labels: map[string]string{"demo": "crowd"}})
			} else {
				tx.Delete(slipswitch.Key{Path: path})
			}
			return nil
		})
		select {
		case <-pace.C:
		case <-c.demo.ctx.Done():
			return
		}
	}
	c.mu.Lock()
	c.remain = 0
	c.mu.Unlock()
}

// visit is the page of such a workspace.
func (c *crowd) visit(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "Somebody else's workspace, %s.\n", r.Header.Get("X-Forwarded-Prefix"))
}
