package render

import (
	"fmt"
	"html"
	"slices"
	"strings"
)

// legendNames are the classes that a legend explains, in its order.
func legendNames() [][2]string {
	return [][2]string{
		{"core", "core"}, {"performance", "performance core"}, {"efficiency", "efficiency core"}, {"low-power", "low-power core"},
		{"cache", "shared cache"}, {"dram", "memory"}, {"hbm", "HBM"}, {"nvm", "persistent or CXL memory"},
		{"gpu", "GPU"}, {"tpu", "TPU"}, {"npu", "NPU"}, {"fpga", "FPGA"}, {"neuromorphic", "neuromorphic"}, {"quantum", "quantum"},
		{"vector", "vector engine"}, {"video", "video"}, {"crypto", "crypto"}, {"accelerator", "accelerator"}, {"switch", "switch"},
		{"net", "network"}, {"disk", "disk"}, {"lost", "lost"}, {"off", "not allowed or offline"},
	}
}

// legendItem is a coloured square with its name.
type legendItem struct {
	class, name string
	width       float64
}

// legendOf lists what the boxes of a drawing are.
func legendOf(sheet *box) (items []legendItem, width float64) {
	var classes []string
	var walk func(b *box)
	walk = func(b *box) {
		if !slices.Contains(classes, b.class) {
			classes = append(classes, b.class)
		}
		for _, k := range b.kids {
			walk(k)
		}
	}
	walk(sheet)
	for _, n := range legendNames() {
		if slices.Contains(classes, n[0]) {
			item := legendItem{n[0], n[1], textWidth(n[1], 11) + 42}
			items = append(items, item)
			width += item.width
		}
	}
	return items, width
}

func drawLegend(out *strings.Builder, items []legendItem, x, y float64) {
	for _, item := range items {
		fmt.Fprintf(out, `<rect class="%s" x="%.1f" y="%.1f" width="13" height="13" rx="3"/>`+"\n", html.EscapeString(item.class), x, y-11)
		drawText(out, "h2", x+19, y, 11, item.name)
		x += item.width
	}
}
