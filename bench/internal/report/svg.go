package report

import (
	"bytes"
	"fmt"
	"html"
	"math"
	"slices"
	"strings"
)

// A plot has lines or, in pairs, bars. It is drawn as SVG by hand: a library
// would bring fonts and sizes of its own, and does not know dark pages.
type plot struct {
	title, x, y string
	logX, logY  bool
	steps       bool      // a value holds until the next one, and the last to the end
	bars        [2]string // what the two bars of each line are; lines if empty
	lines       []line
}

type line struct {
	name   string
	points [][2]float64
}

// Sizes of the drawing, in its own units.
const (
	width, height            = 820, 430
	left, right, top, bottom = 66, 158, 44, 48
)

// colors can be told apart on white and on black, also by most who see fewer of
// them. A peer has the same in all plots.
var colors = map[string]string{
	"slipswitch": "#d6336c", "bare": "#1c7ed6", "nginx": "#2f9e44", "haproxy": "#e8590c", "haproxy-reload": "#a0522d", "caddy": "#7048e8", "chp": "#0c8599",
	"map": "#1c7ed6", "trie": "#2f9e44", "ServeMux": "#e8590c", "httprouter": "#7048e8", "chi": "#0c8599", "bunrouter": "#a0522d", "gin": "#868e96", "echo": "#c2a000",
}

func color(name string) string {
	if c := colors[name]; c != "" {
		return c
	}
	return "#868e96"
}

// drawable returns whether there is something to see.
func (p *plot) drawable() bool {
	return slices.ContainsFunc(p.lines, func(l line) bool { return len(l.points) > 1 })
}

func (p *plot) svg() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="system-ui, sans-serif" font-size="13" role="img" aria-label="%s">
<style>
text { fill: #212529 } .grid { stroke: #ced4da } .paper { fill: #ffffff }
@media (prefers-color-scheme: dark) { text { fill: #e9ecef } .grid { stroke: #495057 } .paper { fill: #0d1117 } }
</style>
<rect class="paper" width="100%%" height="100%%"/>
<text x="%d" y="20" font-size="15" font-weight="600">%s</text>
`, width, height, html.EscapeString(p.title), left, html.EscapeString(p.title))
	xs, ys := p.axes()
	for _, tick := range ys.ticks {
		y := ys.at(tick)
		fmt.Fprintf(&b, `<line class="grid" x1="%d" x2="%d" y1="%.1f" y2="%.1f"/><text x="%d" y="%.1f" text-anchor="end">%s</text>`+"\n",
			left, p.end(), y, y, left-8, y+4, label(tick))
	}
	fmt.Fprintf(&b, `<text x="12" y="%d">%s</text>`+"\n", top-8, html.EscapeString(p.y))
	if p.bars[0] != "" {
		p.drawBars(&b, ys)
	} else {
		for _, tick := range xs.ticks {
			fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle">%s</text>`+"\n", xs.at(tick), height-bottom+20, label(tick))
		}
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle">%s</text>`+"\n", (left+width-right)/2, height-10, html.EscapeString(p.x))
		p.drawLines(&b, xs, ys)
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// drawLines draws them, slipswitch's last and thicker, and their names where
// they end.
func (p *plot) drawLines(b *bytes.Buffer, xs, ys axis) {
	type end struct {
		name string
		y    float64
	}
	var ends []end
	lines := slices.Clone(p.lines)
	slices.SortStableFunc(lines, func(a, b line) int { return strings.Compare(thickness(a.name), thickness(b.name)) })
	for _, l := range lines {
		if len(l.points) == 0 {
			continue
		}
		var path strings.Builder
		if p.steps {
			l.points = staircase(l.points, xs.to)
		}
		for i, point := range l.points {
			fmt.Fprintf(&path, "%s%.1f %.1f", map[bool]string{true: "M", false: "L"}[i == 0], xs.at(point[0]), ys.at(point[1]))
		}
		fmt.Fprintf(b, `<path d="%s" fill="none" stroke="%s" stroke-width="%s" stroke-linejoin="round"/>`+"\n", path.String(), color(l.name), thickness(l.name))
		if !p.steps {
			for _, point := range l.points {
				fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>`+"\n", xs.at(point[0]), ys.at(point[1]), color(l.name))
			}
		}
		last := l.points[len(l.points)-1]
		ends = append(ends, end{l.name, ys.at(last[1])})
		if x := xs.at(last[0]); x < width-right-20 { // it ends early: where that is belongs to its name
			ends[len(ends)-1].name += fmt.Sprintf(" (to %s)", label(last[0]))
		}
	}
	// Names are moved apart: up from the lowest, down from what would be too high.
	slices.SortFunc(ends, func(a, b end) int { return int(1000 * (a.y - b.y)) })
	const gap = 17
	for i := range ends {
		if i > 0 {
			ends[i].y = math.Max(ends[i].y, ends[i-1].y+gap)
		}
	}
	floor := float64(height - bottom)
	for i := len(ends) - 1; i >= 0; i-- {
		ends[i].y = math.Min(ends[i].y, floor)
		floor = ends[i].y - gap
	}
	for _, e := range ends {
		name, _, _ := strings.Cut(e.name, " (")
		fmt.Fprintf(b, `<circle cx="%d" cy="%.1f" r="4" fill="%s"/><text x="%d" y="%.1f"%s>%s</text>`+"\n",
			width-right+12, e.y, color(name), width-right+21, e.y+4, weight(name), html.EscapeString(e.name))
	}
}

// staircase returns points that lead on the level to each next one.
func staircase(points [][2]float64, end float64) (list [][2]float64) {
	for i, point := range points {
		if i > 0 {
			list = append(list, [2]float64{point[0], points[i-1][1]})
		}
		list = append(list, point)
	}
	return append(list, [2]float64{end, points[len(points)-1][1]})
}

func thickness(name string) string {
	if name == "slipswitch" {
		return "3"
	}
	return "1.8"
}

func weight(name string) string {
	if name == "slipswitch" {
		return ` font-weight="700"`
	}
	return ""
}

// end is where the grid ends. Names stand to the right of lines, and below bars.
func (p *plot) end() int {
	if p.bars[0] != "" {
		return width - 20
	}
	return width - right
}

// drawBars draws a pair for each line, the first one pale, with their heights.
func (p *plot) drawBars(b *bytes.Buffer, ys axis) {
	step := float64(p.end()-left) / float64(len(p.lines))
	floor := float64(height - bottom)
	for i, l := range p.lines {
		x := left + step*float64(i) + step*0.12
		bar := step * 0.36
		for j, point := range l.points {
			y := ys.at(point[1])
			fmt.Fprintf(b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s" fill-opacity="%.2f"/><text x="%.1f" y="%.1f" text-anchor="middle" font-size="11">%s</text>`+"\n",
				x+float64(j)*(bar+2), y, bar, floor-y, color(l.name), 0.4+0.6*float64(j), x+float64(j)*(bar+2)+bar/2, y-4, number(point[1]))
		}
		fmt.Fprintf(b, `<text x="%.1f" y="%d" text-anchor="middle"%s>%s</text>`+"\n", x+bar, height-bottom+20, weight(l.name), html.EscapeString(l.name))
	}
	fmt.Fprintf(b, `<text x="%d" y="%d">pale: %s · full: %s</text>`+"\n", left, height-8, p.bars[0], p.bars[1])
}

// An axis leads from values to places.
type axis struct {
	log      bool
	from, to float64 // values
	a, b     float64 // places
	ticks    []float64
}

func (a axis) at(v float64) float64 {
	from, to := a.from, a.to
	if a.log {
		v, from, to = math.Log10(math.Max(v, a.from)), math.Log10(from), math.Log10(to)
	}
	return a.a + (v-from)/(to-from)*(a.b-a.a)
}

func (p *plot) axes() (xs, ys axis) {
	var x, y []float64
	for _, l := range p.lines {
		for _, point := range l.points {
			x, y = append(x, point[0]), append(y, point[1])
		}
	}
	return newAxis(x, p.logX, left, width-right, false), newAxis(y, p.logY, height-bottom, top, true)
}

// newAxis covers all values; whole decades if it is logarithmic, else from zero.
// Room says that there is to be some beyond the last one.
func newAxis(values []float64, log bool, a, b float64, room bool) axis {
	ax := axis{log: log, a: a, b: b, from: slices.Min(values), to: slices.Max(values)}
	if log {
		from, to := math.Floor(math.Log10(math.Max(ax.from, 1e-3))+1e-9), math.Ceil(math.Log10(ax.to)-1e-9)
		if to == from {
			to++
		}
		ax.from, ax.to = math.Pow(10, from), math.Pow(10, to)
		for e := from; e <= to; e++ {
			ax.ticks = append(ax.ticks, math.Pow(10, e))
		}
		return ax
	}
	ax.from = 0
	if ax.to == 0 {
		ax.to = 1
	}
	step := math.Pow(10, math.Floor(math.Log10(ax.to)))
	for _, part := range []float64{0.2, 0.5, 1} {
		if ax.to/(step*part) <= 7 {
			step *= part
			break
		}
	}
	if room {
		ax.to = math.Ceil(ax.to*1.04/step) * step
	}
	for v := 0.0; v <= ax.to*1.0001; v += step {
		ax.ticks = append(ax.ticks, v)
	}
	return ax
}

// label is a number on an axis.
func label(v float64) string {
	switch {
	case v >= 1e6 && math.Mod(v, 1e6) == 0:
		return fmt.Sprintf("%.0fM", v/1e6)
	case v >= 1e3 && math.Mod(v, 1e3) == 0:
		return fmt.Sprintf("%.0fk", v/1e3)
	}
	return strings.TrimSuffix(fmt.Sprintf("%.4g", v), ".0")
}
