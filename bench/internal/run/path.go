package run

import (
	"encoding/base32"
	"encoding/binary"
	"strings"
)

// ID is that of the i-th workspace, made as xid makes them: the time, here of a
// moment in the last year, a machine, a counter.
func ID(i int) string {
	const year = 365 * 24 * 3600
	var id [12]byte
	binary.BigEndian.PutUint32(id[:], uint32(1_700_000_000+uint64(i)*0x9e3779b97f4a7c15%year))
	id[5], id[6], id[7] = 7, byte(i%16), 9
	binary.BigEndian.PutUint32(id[8:], uint32(i))
	return "ide-w" + strings.ToLower(base32.HexEncoding.WithPadding(base32.NoPadding).EncodeToString(id[:]))
}

// Path is that of the i-th workspace.
func Path(i int) string { return "/webapp-01/" + ID(i) }
