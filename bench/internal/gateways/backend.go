package gateways

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
	"net"
	"os/exec"
	"strings"
	"time"

	"github.com/slipswitch/slipswitch/bench/internal/run"
)

// A backend is a process that all routes lead to, each at one of several
// addresses: so a gateway has ports enough to reach it from.
type backend struct {
	port int
	stop func()
}

const backendAddresses = 16

// address returns where a route leads.
func (b *backend) address(route string) string {
	return fmt.Sprintf("127.0.1.%d:%d", b.index(route)+1, b.port)
}

func (b *backend) index(route string) int {
	h := fnv.New32a()
	io.WriteString(h, route)
	return int(h.Sum32() % backendAddresses)
}

func (b *backend) addresses() (list []string) {
	for i := range backendAddresses {
		list = append(list, fmt.Sprintf("127.0.1.%d:%d", i+1, b.port))
	}
	return list
}

func startBackend(ctx context.Context, dir string) (*backend, error) {
	_, port, _ := net.SplitHostPort(freeAddress())
	b := new(backend)
	fmt.Sscan(port, &b.port)
	cmd, err := role("backend", port)
	if err != nil {
		return nil, err
	}
	g, err := startCommand(ctx, b.addresses()[backendAddresses-1], dir, cmd)
	if err != nil {
		return nil, err
	}
	b.stop = g.stop
	return b, nil
}

// Roles are what this program is in a comparison.
var Roles = map[string]run.Role{
	"backend": func(args []string) error { go run.EndWithParent(); return serveBackend(args[0]) },
	"bare":    func(args []string) error { go run.EndWithParent(); return serveBare(args[0], args[1]) },
}

// role returns this program in a role, with a standard input that ends with
// this process.
func role(words ...string) (*exec.Cmd, error) {
	cmd, err := run.Self(words...)
	if err == nil {
		_, err = cmd.StdinPipe()
	}
	return cmd, err
}

func serveBackend(port string) error {
	failed := make(chan error)
	for i := range backendAddresses {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.1.%d:%s", i+1, port))
		if err != nil {
			return err
		}
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					failed <- err
					return
				}
				go serveConnection(conn.(*net.TCPConn))
			}
		}()
	}
	return <-failed
}

var page = fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1024\r\n\r\n%s", strings.Repeat("x", 1024))

// serveConnection answers requests, as cheaply as can be: what it takes is
// missing to the gateways.
func serveConnection(conn *net.TCPConn) {
	defer conn.Close()
	conn.SetLinger(0) // nothing is left behind that would hold a port
	in := bufio.NewReader(conn)
	for {
		key, last := "", false
		for first := true; ; first = false {
			line, err := in.ReadSlice('\n')
			if err != nil {
				return
			}
			if line = bytes.TrimSpace(line); len(line) == 0 {
				break
			}
			if first {
				continue
			}
			name, value, _ := bytes.Cut(line, []byte(":"))
			switch {
			case len(name) == 10 && bytes.EqualFold(name, []byte("connection")):
				last = bytes.EqualFold(bytes.TrimSpace(value), []byte("close"))
			case len(name) == 17 && bytes.EqualFold(name, []byte("sec-websocket-key")):
				key = string(bytes.TrimSpace(value))
			}
		}
		if key != "" {
			serveTunnel(conn, in, key)
			return
		}
		if _, err := conn.Write(page); err != nil || last {
			return
		}
	}
}

// serveTunnel answers each binary message with one of the same size. A text
// message asks for many: two numbers of eight bytes, how many and of what size.
func serveTunnel(conn *net.TCPConn, in *bufio.Reader, key string) {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		base64.StdEncoding.EncodeToString(sum[:]))
	for {
		var head [2]byte
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return
		}
		size := uint64(head[1] & 0x7f)
		if size == 127 {
			binary.Read(in, binary.BigEndian, &size)
		}
		in.Discard(4) // the mask, of zeros
		count := uint64(1)
		if head[0] == text {
			binary.Read(in, binary.BigEndian, &count)
			binary.Read(in, binary.BigEndian, &size)
		} else if _, err := in.Discard(int(size)); err != nil {
			return
		}
		message := frame(binaryMessage, int(size), false)
		for range count {
			if _, err := conn.Write(message); err != nil {
				return
			}
		}
	}
}

const text, binaryMessage = 0x81, 0x82

// frame returns a message of zeros.
func frame(kind byte, size int, masked bool) []byte {
	b := []byte{kind, byte(size)}
	if size > 125 {
		b = binary.BigEndian.AppendUint64([]byte{kind, 127}, uint64(size))
	}
	if masked {
		b[1] |= 0x80
		b = append(b, 0, 0, 0, 0)
	}
	return append(b, make([]byte, size)...)
}

// patience is how long a peer may take for an answer.
const patience = 10 * time.Second
