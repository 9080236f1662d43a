package bench

import (
	"bytes"
	"fmt"
	"image/color"
	"math"
	"os"
	"path/filepath"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

const (
	plotBarWidth  = 14 // points
	plotHeight    = 280
	plotMinWidth  = 420
	plotPerColumn = 70 // points of width for each subject
	plotMargin    = 12
	plotLabelGap  = 3
	plotLabelSize = 8
	// plotHeadroom is how much higher than its highest bar a plot is, for the label above that.
	plotHeadroom = 1.25
)

// wireColors tell the wires apart, also in grey.
var wireColors = map[Wire]color.Color{
	SSE:       color.RGBA{R: 0x1b, G: 0x6c, B: 0xa8, A: 0xff},
	WebSocket: color.RGBA{R: 0xe0, G: 0x8e, B: 0x2b, A: 0xff},
	bothWires: color.RGBA{R: 0x55, G: 0x7a, B: 0x46, A: 0xff},
}

// writePlots draws each figure that is plotted and has values, and gives the files' names by the
// figures' ids.
func (r *Result) writePlots(directory string) (map[string]string, error) {
	names := make(map[string]string)
	for _, f := range figures() {
		if !f.plotted {
			continue
		}
		drawing, columns, err := r.draw(&f)
		if err != nil {
			return nil, fmt.Errorf("draw %q: %w", f.full, err)
		}
		if columns == 0 {
			continue
		}
		name := f.id() + ".svg"
		width := vg.Length(max(plotMinWidth, plotPerColumn*columns))
		if err := save(drawing, width, filepath.Join(directory, name)); err != nil {
			return nil, fmt.Errorf("draw %q: %w", f.full, err)
		}
		names[f.id()] = name
	}
	return names, nil
}

// save writes a drawing as SVG on white, which is readable on a dark page too, with a margin for
// texts that another font makes wider.
func save(drawing *plot.Plot, width vg.Length, path string) error {
	canvas := vgsvg.New(width, plotHeight)
	canvas.SetColor(color.White)
	whole := draw.New(canvas)
	canvas.Fill(whole.Rectangle.Path())
	drawing.Draw(draw.Crop(whole, plotMargin, -plotMargin, plotMargin, -plotMargin))
	var drawn bytes.Buffer
	if _, err := canvas.WriteTo(&drawn); err != nil {
		return err
	}
	return os.WriteFile(path, drawn.Bytes(), 0o644)
}

// draw makes bars of the medians, a column for each subject that has any value.
func (r *Result) draw(f *figure) (drawing *plot.Plot, columns int, err error) {
	drawing = plot.New()
	sans(drawing)
	drawing.Title.Text = f.full
	drawing.Y.Min = 0
	drawing.Y.Tick.Marker = figureTicks{f}
	drawing.Legend.Top = true
	wires := r.measuredWires()
	subjects := r.plottedSubjects(f, wires)
	if len(subjects) == 0 {
		return drawing, 0, nil
	}
	for i, wire := range wires {
		offset := vg.Points(plotBarWidth) * vg.Length(float64(i)-float64(len(wires)-1)/2)
		if err := r.drawWire(drawing, f, wire, subjects, offset); err != nil {
			return nil, 0, err
		}
	}
	drawing.NominalX(subjects...)
	drawing.X.Min, drawing.X.Max = -0.5, float64(len(subjects))-0.5
	drawing.Y.Max *= plotHeadroom
	return drawing, len(subjects), nil
}

// sans takes the font without serifs for all texts.
func sans(drawing *plot.Plot) {
	for _, style := range []*text.Style{
		&drawing.Title.TextStyle, &drawing.X.Tick.Label, &drawing.Y.Tick.Label, &drawing.Legend.TextStyle,
	} {
		style.Font.Variant = "Sans"
	}
}

func (r *Result) plottedSubjects(f *figure, wires []Wire) []string {
	var subjects []string
	for _, name := range r.measuredSubjects() {
		for _, wire := range wires {
			if r.spread(name, f.question(wire)).Count > 0 {
				subjects = append(subjects, name)
				break
			}
		}
	}
	return subjects
}

func (r *Result) drawWire(drawing *plot.Plot, f *figure, wire Wire, subjects []string, offset vg.Length) error {
	values := make(plotter.Values, len(subjects))
	drawn := false
	for i, name := range subjects {
		if value := r.spread(name, f.question(wire)); value.Count > 0 {
			values[i], drawn = value.Median, true
		}
	}
	if !drawn {
		return nil
	}
	bars, err := plotter.NewBarChart(values, vg.Points(plotBarWidth))
	if err != nil {
		return err
	}
	bars.Color, bars.LineStyle.Width, bars.Offset = wireColors[wire], 0, offset
	drawing.Add(bars)
	if err := label(drawing, f, values, offset); err != nil {
		return err
	}
	drawing.Legend.Add(string(wire), bars)
	return nil
}

// label writes each value above its bar, since the smallest bars are too low to be seen.
func label(drawing *plot.Plot, f *figure, values plotter.Values, offset vg.Length) error {
	var texts plotter.XYLabels
	for i, value := range values {
		if value > 0 {
			texts.XYs = append(texts.XYs, plotter.XY{X: float64(i), Y: value})
			texts.Labels = append(texts.Labels, f.format(value))
		}
	}
	labels, err := plotter.NewLabels(texts)
	if err != nil {
		return err
	}
	labels.Offset = vg.Point{X: offset, Y: plotLabelGap}
	for i := range labels.TextStyle {
		labels.TextStyle[i].Font.Variant, labels.TextStyle[i].Font.Size = "Sans", plotLabelSize
		labels.TextStyle[i].Rotation = math.Pi / 2
		labels.TextStyle[i].YAlign = draw.YCenter
	}
	drawing.Add(labels)
	return nil
}

// figureTicks writes the numbers of an axis as the tables write them.
type figureTicks struct{ figure *figure }

// Ticks labels the major ticks that gonum/plot chooses.
func (t figureTicks) Ticks(least, most float64) []plot.Tick {
	ticks := plot.DefaultTicks{}.Ticks(least, most)
	for i := range ticks {
		if ticks[i].Label != "" {
			ticks[i].Label = t.figure.format(ticks[i].Value)
		}
	}
	return ticks
}

// id names a figure in a file's name.
func (f *figure) id() string {
	clean := func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '-'
	}
	return strings.Map(clean, f.scenario+"-"+f.of+"-"+f.metric)
}
