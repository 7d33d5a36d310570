package main

import (
	"fmt"
	"html"
	"html/template"
	"math"
	"slices"
	"strings"
)

// Plots are drawn as SVG by hand: a page that needs no script and no network can be opened anywhere and
// kept for years.

// figure is one plot with its words.
type figure struct {
	Title, Note string
	SVG         template.HTML
}

// series is one curve.
type series struct {
	name   string
	points []point
}

type point struct{ x, low, y, high float64 } // low and high are the range over rounds; y alone if they are 0

// bar is one row of a bar chart: the median and the range over rounds.
type bar struct {
	label          string
	value          float64
	low, high      float64
	group          int // its colour
	annotation     string
	referenceValue float64 // a bar of the project that it is held against; 0 for none
}

const (
	plotWidth  = 720
	plotHeight = 340
	marginL    = 74
	marginR    = 150
	marginT    = 16
	marginB    = 48
)

// axis maps values to pixels, linear or by logarithm.
type axis struct {
	from, to   float64 // values
	start, end float64 // pixels
	log        bool
}

func (a axis) at(v float64) float64 {
	f, t := a.from, a.to
	if a.log {
		v, f, t = math.Log10(math.Max(v, a.from)), math.Log10(f), math.Log10(t)
	}
	if t == f {
		return a.start
	}
	return a.start + (v-f)/(t-f)*(a.end-a.start)
}

// ticks are round values along the axis.
func (a axis) ticks() (out []float64) {
	if a.log {
		steps := []float64{1, 2, 5}
		if math.Log10(a.to/a.from) > 3 {
			steps = []float64{1}
		}
		for e := math.Floor(math.Log10(a.from)); e <= math.Ceil(math.Log10(a.to)); e++ {
			for _, s := range steps {
				if v := s * math.Pow(10, e); v >= a.from*0.999 && v <= a.to*1.001 {
					out = append(out, v)
				}
			}
		}
		return out
	}
	step := math.Pow(10, math.Floor(math.Log10(math.Max(a.to-a.from, 1e-9)/4)))
	for _, m := range []float64{1, 2, 5, 10} {
		if (a.to-a.from)/(step*m) <= 6 {
			step *= m
			break
		}
	}
	for v := math.Ceil(a.from/step) * step; v <= a.to*1.0001; v += step {
		out = append(out, v)
	}
	return out
}

// short writes a value as an axis does: 1k, 20M.
func short(v float64) string {
	for _, u := range []struct {
		of   float64
		name string
	}{{1e9, "G"}, {1e6, "M"}, {1e3, "k"}} {
		if v >= u.of {
			return strings.TrimSuffix(fmt.Sprintf("%.3g", v/u.of), ".0") + u.name
		}
	}
	return fmt.Sprintf("%.3g", v)
}

type canvas struct{ strings.Builder }

func newCanvas(w, h int, title string) *canvas {
	c := &canvas{}
	fmt.Fprintf(c, `<svg viewBox="0 0 %d %d" role="img" aria-label="%s">`, w, h, html.EscapeString(title))
	return c
}

func (c *canvas) line(class string, x1, y1, x2, y2 float64) {
	fmt.Fprintf(c, `<line class="%s" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`, class, x1, y1, x2, y2)
}

func (c *canvas) text(class string, x, y float64, s string) {
	fmt.Fprintf(c, `<text class="%s" x="%.1f" y="%.1f">%s</text>`, class, x, y, html.EscapeString(s))
}

func (c *canvas) done() template.HTML {
	c.WriteString("</svg>")
	return template.HTML(c.String()) // #nosec: every text in it was escaped by text and title
}

// title is shown by browsers over the element before.
func title(s string) string { return "<title>" + html.EscapeString(s) + "</title>" }

// bounds are a little more than the extent of the values; a logarithmic axis keeps clear of 0.
func bounds(log bool, values ...float64) (lo, hi float64) {
	values = slices.DeleteFunc(slices.Clone(values), func(v float64) bool {
		return math.IsNaN(v) || math.IsInf(v, 0) || log && v <= 0
	})
	if len(values) == 0 {
		return 1, 10
	}
	lo, hi = slices.Min(values), slices.Max(values)
	if log {
		if lo == hi {
			return lo / 2, hi * 2
		}
		return lo / 1.15, hi * 1.15
	}
	return 0, math.Max(hi*1.08, 1e-9)
}

// lineChart plots curves; both axes may be logarithmic.
func lineChart(what, xUnit, yUnit string, logX, logY bool, curves []series) template.HTML {
	var xs, ys []float64
	for _, s := range curves {
		for _, p := range s.points {
			xs = append(xs, p.x)
			ys = append(ys, p.y)
			if p.high > 0 {
				ys = append(ys, p.low, p.high)
			}
		}
	}
	x, y := axis{log: logX, start: marginL, end: plotWidth - marginR}, axis{log: logY, start: plotHeight - marginB, end: marginT}
	x.from, x.to = bounds(logX, xs...)
	y.from, y.to = bounds(logY, ys...)
	c := newCanvas(plotWidth, plotHeight, what)
	for _, v := range y.ticks() {
		c.line("grid", x.start, y.at(v), x.end, y.at(v))
		c.text("tick end", x.start-6, y.at(v)+4, short(v))
	}
	for _, v := range x.ticks() {
		c.line("grid", x.at(v), y.start, x.at(v), y.end)
		c.text("tick middle", x.at(v), y.start+16, short(v))
	}
	c.text("unit middle", (x.start+x.end)/2, plotHeight-10, xUnit)
	fmt.Fprintf(c, `<text class="unit middle" transform="translate(14 %.1f) rotate(-90)">%s</text>`, (y.start+y.end)/2, html.EscapeString(yUnit))
	for i, s := range curves {
		var path []string
		for _, p := range s.points {
			if p.y > 0 || !logY {
				path = append(path, fmt.Sprintf("%.1f,%.1f", x.at(p.x), y.at(p.y)))
			}
		}
		fmt.Fprintf(c, `<polyline class="curve c%d" points="%s"/>`, i%6, strings.Join(path, " "))
		for _, p := range s.points {
			if p.high > 0 {
				c.line(fmt.Sprintf("range c%d", i%6), x.at(p.x), y.at(p.low), x.at(p.x), y.at(p.high))
			}
			fmt.Fprintf(c, `<circle class="dot c%d" cx="%.1f" cy="%.1f" r="3">%s</circle>`, i%6, x.at(p.x), y.at(p.y),
				title(fmt.Sprintf("%s: %s at %s", s.name, short(p.y), short(p.x))))
		}
		ly := float64(marginT + 14 + 20*i)
		c.line(fmt.Sprintf("curve c%d", i%6), x.end+12, ly-4, x.end+34, ly-4)
		c.text("key", x.end+40, ly, s.name)
	}
	return c.done()
}

// barChart draws rows to the right of their labels, on a logarithmic axis around one when ratios is true:
// twice as fast and half as fast are then equally far from the line.
func barChart(what, unit string, ratios bool, bars []bar) template.HTML {
	const label, rowHeight = 190, 24
	h := marginT + rowHeight*len(bars) + marginB
	var values []float64
	for _, b := range bars {
		values = append(values, b.value)
		if b.high > 0 {
			values = append(values, b.low, b.high)
		}
		if b.referenceValue > 0 {
			values = append(values, b.referenceValue)
		}
	}
	x := axis{log: ratios, start: label, end: plotWidth - 70}
	origin := 0.0
	if ratios {
		origin = 1
		values = append(values, 0.5, 2)
	}
	x.from, x.to = bounds(ratios, values...)
	bottom := float64(h - marginB)
	c := newCanvas(plotWidth, h, what)
	for _, v := range x.ticks() {
		c.line("grid", x.at(v), marginT, x.at(v), bottom)
		c.text("tick middle", x.at(v), bottom+16, short(v))
	}
	if ratios {
		c.line("one", x.at(1), marginT, x.at(1), bottom)
	}
	c.text("unit middle", (x.start+x.end)/2, float64(h-10), unit)
	for i, b := range bars {
		y := float64(marginT + rowHeight*i)
		c.text("key end", label-8, y+16, b.label)
		from, to := x.at(origin), x.at(b.value)
		fmt.Fprintf(c, `<rect class="bar c%d" x="%.1f" y="%.1f" width="%.1f" height="%d">%s</rect>`, b.group%6, math.Min(from, to), y+4, math.Max(math.Abs(to-from), 1), rowHeight-9,
			title(fmt.Sprintf("%s: %.3g (%.3g to %.3g)", b.label, b.value, b.low, b.high)))
		if b.high > 0 {
			c.line("whisker", x.at(b.low), y+rowHeight/2-0.5, x.at(b.high), y+rowHeight/2-0.5)
		}
		if b.referenceValue > 0 {
			c.line("reference", x.at(b.referenceValue), y+1, x.at(b.referenceValue), y+rowHeight-2)
		}
		c.text("value", x.end+6, y+16, b.annotation)
	}
	return c.done()
}
