package main

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// counts are the metrics, under the names that dashboards use.
type counts struct {
	registry        *prometheus.Registry
	routeGet        prometheus.Counter
	routeAdd        prometheus.Counter
	routeDelete     prometheus.Counter
	websockets, web prometheus.Counter
	proxy, api      *prometheus.CounterVec
	find, activity  prometheus.Summary
}

func newCounts() *counts {
	c := &counts{registry: prometheus.NewRegistry()}
	counter := func(name, help string) prometheus.Counter {
		m := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		c.registry.MustRegister(m)
		return m
	}
	byStatus := func(name, help string) *prometheus.CounterVec {
		m := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{"status"})
		c.registry.MustRegister(m)
		return m
	}
	summary := func(name, help string) prometheus.Summary {
		m := prometheus.NewSummary(prometheus.SummaryOpts{Name: name, Help: help,
			Objectives: map[float64]float64{0.01: 0.001, 0.05: 0.005, 0.5: 0.01, 0.9: 0.01, 0.95: 0.005, 0.99: 0.001, 0.999: 0.0001}})
		c.registry.MustRegister(m)
		return m
	}
	c.routeGet = counter("api_route_get", "Times that the API has listed routes.")
	c.routeAdd = counter("api_route_add", "Times that the API has put a route.")
	c.routeDelete = counter("api_route_delete", "Times that the API was asked to delete a route.")
	c.websockets = counter("requests_ws", "WebSocket requests.")
	c.web = counter("requests_web", "Other requests.")
	c.proxy = byStatus("requests_proxy", "Requests by the status of the answer; of WebSockets only those refused.")
	c.api = byStatus("requests_api", "Requests to the API by the status of the answer.")
	c.find = summary("find_target_for_req", "Seconds to find a request's route.")
	c.activity = summary("last_activity_updating", "Seconds to note that a route has served a request.")
	c.registry.MustRegister(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collectors.NewGoCollector())
	return c
}

// handler serves /metrics.
func (c *counts) handler() http.Handler {
	metrics := promhttp.HandlerFor(c.registry, promhttp.HandlerOpts{})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/metrics" {
			http.Error(w, http.StatusText(http.StatusNotFound), http.StatusNotFound)
			return
		}
		metrics.ServeHTTP(w, r)
	})
}

func (c *counts) proxied(status int) { c.proxy.WithLabelValues(strconv.Itoa(status)).Inc() }

// timeActivity records the time that it took to note a use.
func (c *counts) timeActivity(start time.Time) { c.activity.Observe(time.Since(start).Seconds()) }

// timeFind records the time of a lookup.
func (c *counts) timeFind(start time.Time) { c.find.Observe(time.Since(start).Seconds()) }

// asked counts an answer of the API.
func (c *counts) asked(r *http.Request, status int) {
	c.api.WithLabelValues(strconv.Itoa(status)).Inc()
	switch {
	case r.Method == http.MethodGet && status == http.StatusOK && strings.Trim(strings.TrimPrefix(r.URL.Path, apiPath), "/") == "":
		c.routeGet.Inc()
	case status == http.StatusCreated:
		c.routeAdd.Inc()
	case r.Method == http.MethodDelete && (status == http.StatusNoContent || status == http.StatusNotFound):
		c.routeDelete.Inc()
	}
}
