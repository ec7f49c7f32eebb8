package main_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// startWithoutToken starts a gateway that nobody gave a token.
func startWithoutToken(t *testing.T, home string, stdout *os.File) *process {
	t.Helper()
	cmd := exec.Command(program, "-log-format=json")
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "SLIPSWITCH_") {
			cmd.Env = append(cmd.Env, entry)
		}
	}
	cmd.Env = append(cmd.Env, "XDG_CONFIG_HOME="+home, "HOME="+home, "AppData="+home,
		"SLIPSWITCH_LISTEN=127.0.0.1:0", "SLIPSWITCH_ADMIN=127.0.0.1:0", "SLIPSWITCH_DRAIN_DELAY=0s")
	if stdout != nil {
		cmd.Stdout = stdout
	}
	g := startCommand(t, cmd, "")
	file := g.await("the admin token is in a file", nil)["file"].(string)
	if !strings.HasPrefix(file, home) {
		t.Fatalf("the token is in %s; want it below %s", file, home)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	g.token = strings.TrimSpace(string(text))
	if len(g.token) < 20 {
		t.Fatalf("the token is %q; want a longer one", g.token)
	}
	if info, err := os.Stat(file); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("the file's mode: %v, %v; want 0600", info.Mode(), err)
	}
	return g
}

// With no token configured there is one all the same, which its file tells and
// no log does, and which a restart keeps.
func TestTokenFile(t *testing.T) {
	home := t.TempDir()
	g := startWithoutToken(t, home, nil)
	g.must("GET", "/v1/status", nil, nil)
	first := g.token
	g.token = ""
	if status, _ := g.call("GET", "/v1/status", nil, nil); status != 401 {
		t.Errorf("without a token: %d; want 401", status)
	}
	g.stop()
	if out := g.stdout.String() + g.stderr.String(); strings.Contains(out, first) {
		t.Errorf("the token is in the output:\n%s", out)
	}
	g = startWithoutToken(t, home, nil)
	if g.token != first {
		t.Errorf("the token after a restart is %s; want %s", g.token, first)
	}
	left, err := filepath.Glob(filepath.Join(home, "slipswitch", ".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestSettings(t *testing.T) {
	for _, row := range []struct {
		env, args []string
		want      string
	}{
		{nil, []string{"-tls-cert=a"}, "-tls-cert and -tls-key go together"},
		{nil, []string{"-log-format=xml"}, `-log-format must be text or json, not "xml"`},
		{nil, []string{"-trusted-proxies=10.0.0.0/8,all"}, `"all" is neither an address nor a range`},
		{nil, []string{"serve"}, `unexpected argument "serve"`},
		{nil, []string{"-drain-delay=-1s"}, `"-1s" must be a time such as 20s`},
		{[]string{"SLIPSWITCH_DRAIN_WINDOW=soon"}, nil, `SLIPSWITCH_DRAIN_WINDOW: "soon" must be a time such as 20s`},
		{[]string{"SLIPSWITCH_LOG_FORMAT=xml"}, []string{"-log-format=json", "extra"}, `unexpected argument "extra"`}, // flags win
		{nil, []string{"-store=redis:x"}, `"redis:x" must be memory, bolt:FILE`},
		{nil, []string{"-store=bolt"}, `"bolt" must be memory, bolt:FILE`},
		{nil, []string{"-data=/none/routes.db"}, "-store bolt:/none/routes.db: open /none/routes.db: no such file"},
		{nil, []string{"-adnim=x"}, "gateway: flag provided but not defined: -adnim: see gateway -help\n"},
		{nil, []string{"-demo", "-data=x.db"}, "-demo keeps its routes in memory"},
		{nil, []string{"-drain-delay=5"}, `-drain-delay: "5" must be a time`},
		{nil, []string{"-max-tunnels=many"}, `-max-tunnels: "many" must be a number`},
		{nil, []string{"-max-tunnels=-1"}, `-max-tunnels: "-1" must be a number`},
		{nil, []string{"-max-stale=-1s"}, `-max-stale: "-1s" must be a time`},
		{nil, []string{"-store=file:/none"}, "filestore: /none: no such file"},
		{nil, []string{"-admin-token=x", "-listen=8080"}, "-listen: listen tcp: address 8080: missing port"},
		{nil, []string{"-admin-token=x", "-listen=127.0.0.1:0", "-admin=8081"}, "-admin: listen tcp: address 8081: missing port"},
		{nil, []string{"-admin-token=x", "-admin-token-file=y"}, "-admin-token and -admin-token-file cannot be used together"},
		{[]string{"SLIPSWITCH_ADMIN_TOKEN=x\n"}, nil, "-admin-token: a token must have only printable characters"},
		{nil, []string{"-admin-hosts=gateway.internal:8081"}, `-admin-hosts: "gateway.internal:8081" must be a host name without port`},
		{nil, []string{"-admin-token=x", "-listen=127.0.0.1:0", "-admin=", "-health=8082"}, "-health: listen tcp: address 8082: missing port"},
		{nil, []string{"-admin-token=x", "-listen=127.0.0.1:0", "-admin=unix:/none/socket"}, "-admin: listen unix /none/socket: "},
		{nil, []string{"-tls-cert=/none", "-tls-key=/none"}, "certificate: "},
	} {
		cmd := exec.Command(program, row.args...)
		cmd.Env = append(os.Environ(), row.env...)
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), row.want) {
			t.Errorf("%v %v: %v, %q; want %q", row.env, row.args, err, out, row.want)
		}
	}
}

// A token file that cannot be meant so is refused, and its content is never
// told; a mistyped path makes no directories.
func TestTokenFilesRefused(t *testing.T) {
	dir := t.TempDir()
	for _, row := range []struct {
		name, text string
		mode       os.FileMode
		want       string
	}{
		{"all-write", "s3cret\n", 0o666, "has mode 0666, so everybody can write a token to it: chmod 600"},
		{"empty", "\n \n", 0o600, "the file is empty"},
		{"two-lines", "s3cret\ns3cret-old\n", 0o600, "line 1 must be a name and a token"},
		{"a-name-less", "ci s3cret-1\ns3cret-2\n", 0o600, "line 2 must be a name and a token"},
		{"three", "ci s3cret-1 x\n", 0o600, "line 1 must be a name and a token"},
		{"same-name", "ci s3cret-1\n\nci s3cret-2\n", 0o600, "line 3 has the name or the token of another line"},
		{"same-token", "ci s3cret\nada s3cret\n", 0o600, "line 2 has the name or the token of another line"},
		{"control", "s3cret\x00\n", 0o600, "a token must have only printable characters"},
		{"byte-order-mark", "\ufeffs3cret\n", 0o600, "a token must have only printable characters"},
		{"none/of/these", "", 0, "none/of/"},
	} {
		file := filepath.Join(dir, row.name)
		if row.mode != 0 {
			if err := errors.Join(os.WriteFile(file, []byte(row.text), 0o600), os.Chmod(file, row.mode)); err != nil {
				t.Fatal(err)
			}
		}
		if runtime.GOOS == "windows" && row.mode == 0o666 {
			continue
		}
		out, err := exec.Command(program, "-listen=127.0.0.1:0", "-admin=127.0.0.1:0", "-admin-token-file="+file).CombinedOutput()
		if err == nil || !strings.Contains(string(out), row.want) || strings.Contains(string(out), "s3cret") {
			t.Errorf("%s: %v, %q; want %q", row.name, err, out, row.want)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory was made for a mistyped path: %v", err)
	}
}
