package routes

import (
	"cmp"
	"strconv"

	"github.com/slipswitch/slipswitch"
)

var slipswitchRouter = router{"slipswitch", "Router.Lookup", func() table { return new(slipswitchTable) }}

type slipswitchTable struct{ slipswitch.Router }

func slipswitchRoute(r route) slipswitch.Route {
	return slipswitch.Route{Host: r.host, Path: cmp.Or(r.path, "/"), Upstreams: slipswitch.To("http://10.0.0.7:8080"),
		Labels: map[string]string{"n": strconv.Itoa(r.n)}}
}

func (t *slipswitchTable) put(r route) error {
	_, err := t.Update(func(tx *slipswitch.Txn) error { tx.Put(slipswitchRoute(r)); return nil })
	return err
}

func (t *slipswitchTable) putAll(list []route) error {
	_, err := t.Update(func(tx *slipswitch.Txn) error {
		for _, r := range list {
			tx.Put(slipswitchRoute(r))
		}
		return nil
	})
	return err
}

func (t *slipswitchTable) remove(r route) {
	t.Update(func(tx *slipswitch.Txn) error {
		tx.Delete(slipswitch.Key{Host: r.host, Path: cmp.Or(r.path, "/")})
		return nil
	})
}

func (t *slipswitchTable) lookup(a *asker, host, path string) bool {
	match, err := t.Lookup(host, path)
	a.match = match
	return err == nil
}
