package http1

import (
	"bytes"
	"io"
	"maps"
	"net/http"
	"time"
)

// readHeader reads up to the header of the final response.
func (r *Response) readHeader() error {
	for range maxInterim + 1 {
		block, err := r.block(true)
		if err != nil {
			return err
		}
		i := bytes.IndexByte(block, '\n')
		if i < 0 {
			return errStatus
		}
		if r.Minor, r.Status, err = parseStatus(block[:i-1]); err != nil {
			return err
		}
		slots := r.slots[:]
		if r.Status < 200 {
			slots = nil
		}
		if r.Header, err = parseFields(block[i+1:], slots); err != nil {
			return err
		}
		r.conn.trim()
		if r.Status >= 200 || r.Status == http.StatusSwitchingProtocols {
			return r.beginBody()
		}
		if err := r.interim(); err != nil {
			return err
		}
	}
	return errInterim
}

func (r *Response) interim() error {
	if err := r.frameInterim(); err != nil {
		return err
	}
	if r.Status != http.StatusContinue {
		if r.request.Interim == nil {
			return nil
		}
		return r.request.Interim(r.Status, r.Header)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stage == awaitContinue && r.request.expectsContinue() {
		r.startSending()
		r.arm()
	}
	return nil
}

func (r *Response) beginBody() error {
	if r.Status == http.StatusSwitchingProtocols && r.request.Upgrade == "" {
		return errSwitched
	}
	if err := r.frame(); err != nil {
		return err
	}
	r.conn.answered = true
	r.mu.Lock()
	defer r.mu.Unlock()
	timed := !r.due.IsZero()
	r.stage, r.due = awaitBody, time.Time{}
	if timed {
		r.arm()
	}
	return nil
}

// block returns lines up to an empty one, without that: a header, or a trailer.
// It is part of the buffer. It is nil if it is not there and must not be waited for.
func (r *Response) block(wait bool) ([]byte, error) {
	c := r.conn
	for {
		for {
			i := bytes.IndexByte(c.buf[c.r+r.scanned:c.w], '\n')
			if i < 0 {
				r.scanned = c.buffered()
				break
			}
			end := r.scanned + i
			if end == r.line || c.buf[c.r+end-1] != '\r' {
				return nil, errBareLF
			}
			if end == r.line+1 {
				block := c.buf[c.r : c.r+r.line : c.r+r.line]
				c.r += end + 1
				r.header += end + 1
				r.line, r.scanned = 0, 0
				if most := r.request.maxHeader(); r.header > most {
					return nil, errTooLong(most)
				}
				return block, nil
			}
			r.line, r.scanned = end+1, end+1
		}
		if most := r.request.maxHeader(); r.header+r.scanned > most {
			return nil, errTooLong(most)
		}
		if r.next == nothing && r.line == 0 && !mayBeStatus(c.buf[c.r:c.w]) {
			return nil, errStatus // what speaks another protocol may never end a line
		}
		if !wait {
			return nil, nil
		}
		if _, err := r.receive(nil); err != nil {
			return nil, err
		}
	}
}

// A next says what comes next of a body.
type next uint8

const (
	nothing next = iota
	data
	chunkSize
	chunkEnd // CRLF
	trailer
)

// advance goes on to the body's next bytes, and returns how many of them stand
// in the buffer, or io.EOF at the end. Zero means that none are there, and that
// it must not wait.
func (r *Response) advance(wait bool) (int, error) {
	c := r.conn
	for {
		switch r.next {
		case nothing:
			return 0, io.EOF
		case data:
			if n := min(int64(c.buffered()), r.remaining); n > 0 || !wait {
				return int(n), nil
			}
			if _, err := r.receive(nil); err != nil {
				return 0, r.inData(err)
			}
		case chunkSize, chunkEnd:
			line, err := r.chunkLine(wait)
			if err != nil || line == nil {
				return 0, unexpected(err)
			}
			if err := r.nextChunk(line); err != nil {
				return 0, err
			}
			c.trim()
		case trailer:
			block, err := r.block(wait)
			if err != nil || block == nil {
				return 0, unexpected(err)
			}
			return 0, r.readTrailer(block)
		}
	}
}

// used takes body bytes off that have been read.
func (r *Response) used(n int64) {
	if r.remaining -= n; r.remaining == 0 {
		r.next = nothing
		if r.chunked {
			r.next = chunkEnd
		}
	}
}

// take is used for bytes in the buffer.
func (r *Response) take(n int) {
	r.conn.r += n
	r.conn.trim()
	r.used(int64(n))
}

// inData tells what an error within data means.
func (r *Response) inData(err error) error {
	if r.toClose {
		return err
	}
	return unexpected(err)
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Read reads the next bytes of the body. Where the end is known, io.EOF comes
// with the last ones.
func (r *Response) Read(p []byte) (int, error) {
	if r.over != nil {
		return 0, r.over
	}
	n, err := r.read(p)
	return n, r.done(err)
}

// direct is from which size on a read need not go by way of the buffer.
const direct = 512

func (r *Response) read(p []byte) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if n == 0 && r.next == data && r.conn.buffered() == 0 && len(p) >= direct {
			n, err = r.receive(p[:min(int64(len(p)), r.remaining)])
			if err != nil {
				return n, r.inData(err)
			}
			r.used(int64(n))
			continue
		}
		there, err := r.advance(n == 0)
		if there == 0 || n == len(p) {
			return n, err
		}
		m := copy(p[n:], r.conn.buf[r.conn.r:r.conn.r+there])
		r.take(m)
		n += m
	}
}

// done notes how the body has ended, if it has.
func (r *Response) done(err error) error {
	switch {
	case err == io.EOF:
		r.over = err
		r.receivedAll()
	case err != nil:
		err = r.fail(err)
		r.over = err
	}
	return err
}

const (
	// Bodies from spliceMin on go from socket to socket where they can, as long as
	// so many bytes are there at once that it is worth the calls.
	spliceMin  = 64 << 10
	spliceMost = 256 << 10 // a slow client may take minutes for that
	spliceFew  = 16 << 10
)

// WriteTo writes the body to w. If w can be flushed, it is when the upstream
// pauses, before the first byte, too: what was written before may wait there. Large bodies that are not chunked are moved by the kernel if w is an
// io.ReaderFrom that leads to a TCP connection. No buffer is held while the
// upstream is waited for, unless it speaks TLS.
func (r *Response) WriteTo(w io.Writer) (n int64, err error) {
	if r.over != nil {
		return 0, endOfWriteTo(r.over)
	}
	flusher, _ := w.(interface{ FlushError() error })
	readerFrom, _ := w.(io.ReaderFrom)
	if !canSplice || r.conn.tcp == nil || r.conn.secure || r.chunked {
		readerFrom = nil
	}
	c := r.conn
	dirty := true
	for {
		there, err := r.advance(false)
		if there == 0 && err == nil { // it is to wait
			if dirty && flusher != nil && (c.socket == nil || c.look() == quiet) {
				if err := flusher.FlushError(); err != nil {
					return n, err
				}
				dirty = false
			}
			if readerFrom != nil && r.remaining >= spliceMin {
				moved, err := r.splice(readerFrom)
				n += moved
				if err != nil {
					return n, endOfWriteTo(err)
				}
				if dirty = dirty || moved > 0; moved > 0 {
					continue
				}
			}
			there, err = r.advance(true)
		}
		if err != nil {
			return n, endOfWriteTo(r.done(err))
		}
		m, err := w.Write(c.buf[c.r : c.r+there])
		n += int64(m)
		if err != nil {
			return n, err
		}
		r.take(there)
		dirty = true
	}
}

// endOfWriteTo is WriteTo's error where Read's is known.
func endOfWriteTo(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}

// splice moves what is there to w, if it is much. All of it can be read without
// waiting, so no deadline for reads passes meanwhile however slow w is.
func (r *Response) splice(w io.ReaderFrom) (int64, error) {
	there, err := r.await(int(min(r.remaining, spliceMost)))
	if err != nil {
		return 0, r.done(r.inData(err))
	}
	if there < spliceFew {
		return 0, nil
	}
	source := io.LimitedReader{R: r.conn.tcp, N: int64(there)}
	r.lift()
	_, err = w.ReadFrom(&source)
	moved := int64(there) - source.N
	r.used(moved)
	if err == nil && source.N > 0 {
		err = io.ErrShortWrite
	}
	return moved, err
}

func (r *Response) readTrailer(block []byte) error {
	fields, err := parseFields(block, nil)
	if err != nil {
		return err
	}
	r.conn.trim()
	maps.DeleteFunc(fields, func(name string, _ []string) bool { return isFraming(name) })
	if r.Trailer == nil {
		r.Trailer = fields
	} else {
		maps.Copy(r.Trailer, fields)
	}
	r.next = nothing
	return io.EOF
}

const maxChunkLine = small // of a size with its extensions

// chunkLine returns the next line, without its end, as a part of the buffer; nil
// if it is not there and must not be waited for.
func (r *Response) chunkLine(wait bool) ([]byte, error) {
	c := r.conn
	for {
		if i := bytes.IndexByte(c.buf[c.r+r.scanned:c.w], '\n'); i >= 0 {
			end := r.scanned + i
			r.scanned = 0
			if end == 0 || c.buf[c.r+end-1] != '\r' {
				return nil, errBareLF
			}
			line := c.buf[c.r : c.r+end-1 : c.r+end-1]
			c.r += end + 1
			return line, nil
		}
		if r.scanned = c.buffered(); r.scanned >= maxChunkLine {
			return nil, errChunk
		}
		if !wait {
			return nil, nil
		}
		if _, err := r.receive(nil); err != nil {
			return nil, err
		}
	}
}

// nextChunk takes a line between two chunks' data: the end of the one, or the
// size of the next (RFC 9112 §7.1).
func (r *Response) nextChunk(line []byte) error {
	if r.next == chunkEnd {
		if len(line) > 0 {
			return errChunk
		}
		r.next = chunkSize
		return nil
	}
	var size int64
	i := 0
	for ; i < len(line) && class[line[i]]&hexByte != 0; i++ {
		if i == 15 {
			return errChunk
		}
		size = size<<4 | int64(unhex(line[i]))
	}
	rest := bytes.TrimRight(line[i:], " \t") // some fill up with spaces
	if i == 0 || len(rest) > 0 && rest[0] != ';' || !isValue(rest) {
		return errChunk
	}
	// One byte a chunk is legitimate in a stream; more overhead than that is not
	// without end. The bounds are net/http's.
	if r.excess = max(0, r.excess+int64(len(line))+2-16-2*size); r.excess > 16<<10 {
		return errPadding
	}
	r.remaining, r.next = size, data
	if size == 0 {
		r.next = trailer
	}
	return nil
}

func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return lower(c) - 'a' + 10
}
