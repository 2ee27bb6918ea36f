package place

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// hostile are expressions that cost more than they look.
func hostile() map[string]string {
	// nested wraps "true" in so many macros.
	nested := func(n int, format, inner string) string {
		for i := n; i > 0; i-- {
			inner = fmt.Sprintf(format, i-1, i, inner)
		}
		return inner
	}
	replaced := "device.driver"
	for range 60 {
		replaced += `.replace("", device.driver+"aaaaaaaaaaaa")`
	}
	list := "[" + strings.Repeat("1,", 199) + "1]"
	word := strings.Repeat("a", 2000)
	return map[string]string{
		"replace of replace":  replaced + ".size() > 1",
		"replace in literals": `"a".replace("", "` + word + `").replace("", "` + word + `").replace("", "` + word + `") == ""`,
		"join":                `["` + word + `", "` + word + `"].join("` + word + `").split("").join("` + word + `") == ""`,
		"format":              `"%.1000000f".format([1.0]) == ""`,
		"doubled text":        nested(30, `[a%[1]d + a%[1]d].all(a%[2]d, %[3]s)`, "a30 == ''"),
		"doubled text, few":   `["aaaaaaaaaaaaaaaaa"].all(a0, ` + nested(13, `[a%[1]d + a%[1]d].all(a%[2]d, %[3]s)`, "a13 == ''") + `)`,
		"doubled text, bound": `["aaaaaaaaaaaaaaaaa"].all(a0, ` + nested(22, `[a%[1]d + a%[1]d].all(a%[2]d, %[3]s)`, "a22 == ''") + `)`,
		"doubled lists":       `[[1,2,3]].all(a0, ` + nested(22, `[a%[1]d + a%[1]d].all(a%[2]d, %[3]s)`, "9 in a22") + `)`,
		"lists of lists":      `[[1,2,3]].all(a0, ` + nested(22, `[[a%[1]d, a%[1]d]].all(a%[2]d, %[3]s)`, "a22 == a22") + `)`,
		"mapped lists":        nested(8, `[1,2,3,4,5,6,7,8].map(a%[1]d, %[3]s).size() > %[2]d`, "[1]"),
		"loops in loops":      fmt.Sprintf("%[1]s.all(a, %[1]s.all(b, %[1]s.all(c, %[1]s.all(d, a+b+c+d > 0))))", list),
		"loops over devices":  nested(6, `device.attributes.all(a%[1]d, device.attributes[a%[1]d].all(b%[2]d, %[3]s))`, "true"),
		"large pattern":       `device.driver.matches("(((a{30}){30}|b){30})*$")`,
		"many patterns":       `["` + word + `"].all(s, ` + strings.Repeat(`s.matches("^(a|aa)+$") && `, 100) + `true)`,
		"built pattern":       `device.driver.matches(device.driver + "(a{1000})")`,
		"optional chain":      "optional.of(1)" + strings.Repeat(".optMap(x, x + 1)", 24) + ".hasValue()",
		"many parentheses":    strings.Repeat("(", 3000) + "true" + strings.Repeat(")", 3000),
		"many terms":          strings.Repeat("true || ", 1200) + "true",
		"many errors":         strings.Repeat("] ) + ", 1400),
		"long name":           "device." + strings.Repeat("a", 9000) + " == 1",
		"long list":           "[" + strings.Repeat("1,", 4000) + "1].size() > 1",
		"nested lists":        strings.Repeat("[", 60) + strings.Repeat("]", 60) + " == []",
		"wide ternary":        strings.Repeat("true ? ", 60) + "true" + strings.Repeat(" : false", 60),
		"tiny quantity":       `quantity("1e-60000000").isLessThan(quantity("1"))`,
		"huge quantity":       `quantity("1e60000000").isLessThan(quantity("1"))`,
		"digits":              `quantity("` + strings.Repeat("9", 60) + `Ei").isLessThan(quantity("1"))`,
	}
}

// TestHostileSelectors holds compiling and matching to little memory. Time is
// held with it: what takes long here takes memory or is counted.
func TestHostileSelectors(t *testing.T) {
	const most = 64 << 20 // bytes allocated in all, for compiling and one machine
	m := withGPUs(grid(1, 1, 1, 2, 1), 2)
	for name, src := range hostile() {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			sel, err := CompileSelector(src)
			if err == nil {
				_, err = newState(t, m).matching(t.Context(), sel)
			}
			runtime.ReadMemStats(&after)
			if used := after.TotalAlloc - before.TotalAlloc; used > most {
				t.Errorf("%d MiB were allocated (%v)", used>>20, err)
			}
			t.Log(err)
		})
	}
}

func TestSelectorsAreBounded(t *testing.T) {
	for _, c := range []struct{ src, want string }{
		{"", "yntax error"},
		{"1 +", "yntax error"},
		{"nonsense", "undeclared"},
		{"1 + 1", "true or false"},
		{strings.Repeat("a", 20000), "longer than"},
		{`"a".replace("a", "b") == "b"`, "selectors have no function replace"},
		{`timestamp("2020-01-01T00:00:00Z").getFullYear() > 1`, "selectors have no function"},
		{`device.driver.matches(device.driver)`, "must be written out"},
		{`device.driver.matches("(")`, "missing closing"},
		{`device.driver.matches("a{200}")`, "regex program size"},
		{hostile()["loops in loops"], "may cost more"},
		{hostile()["many terms"], "node count exceeds"},
		{hostile()["many parentheses"], "recursion limit"},
	} {
		if _, err := CompileSelector(c.src); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.40q: got %v, want an error about %q", c.src, err, c.want)
		}
	}
	for _, c := range []struct{ name, want string }{{"doubled text, few", "larger than"}, {"many patterns", "steps"}, {"tiny quantity", "24Gi"}} {
		sel, err := CompileSelector(hostile()[c.name])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := sel.Match(t.Context(), &Device{Driver: "x"}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error about %q", c.name, err, c.want)
		}
	}
	sel := selector(t, `device.attributes.all(d, d != "x") && device.driver == "gpu.example.com"`)
	ended, end := context.WithCancel(t.Context())
	end()
	if _, err := sel.Match(ended, &Device{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want a match that ends with its context", err)
	}
}

// TestSelectorsOfTheField holds what people write for Kubernetes DRA.
func TestSelectorsOfTheField(t *testing.T) {
	d := &Device{
		Driver: "gpu.nvidia.com",
		Attributes: map[string]any{
			"productName": "NVIDIA H100 80GB HBM3", "cudaComputeCapability": "9.0.0", "index": int64(3), "mps": true,
			"resource.kubernetes.io/pcieRoot": "pci0000:17", "oscine.dev/kind": "gpu",
		},
		Capacity: map[string]int64{"memory": 80 << 30},
	}
	for src, want := range map[string]bool{
		`device.driver == "gpu.nvidia.com"`:                                                                                                                        true,
		`device.attributes["gpu.nvidia.com"].productName.lowerAscii().matches("^.*h100.*$")`:                                                                       true,
		`device.attributes["gpu.nvidia.com"].productName.matches("^NVIDIA (A100|H100|H200|GH200|B200).*(80|96|141|180) ?GB.*$")`:                                   true,
		`device.capacity["gpu.nvidia.com"].memory.compareTo(quantity("40Gi")) >= 0`:                                                                                true,
		`device.capacity["gpu.nvidia.com"].memory.isGreaterThan(quantity("1e11"))`:                                                                                 false,
		`has(device.attributes["gpu.nvidia.com"].mps) && device.attributes["gpu.nvidia.com"].mps`:                                                                  true,
		`device.attributes["gpu.nvidia.com"].?driver.orValue("none") == "none"`:                                                                                    true,
		`device.attributes["resource.kubernetes.io"].pcieRoot in ["pci0000:17", "pci0000:3d"]`:                                                                     true,
		`device.attributes["gpu.nvidia.com"].index in [0, 1, 2, 4]`:                                                                                                false,
		`device.attributes["gpu.nvidia.com"].cudaComputeCapability.split(".")[0] == "9"`:                                                                           true,
		`"oscine.dev" in device.attributes && device.attributes["oscine.dev"].exists(name, name == "kind")`:                                                        true,
		`int(device.attributes["gpu.nvidia.com"].cudaComputeCapability.substring(0, 1)) >= 9 && device.attributes["gpu.nvidia.com"].index % 2 == 1 ? true : false`: true,
	} {
		sel, err := CompileSelector(src)
		if err != nil {
			t.Errorf("%s: %v", src, err)
			continue
		}
		if got, err := sel.Match(t.Context(), d); err != nil || got != want {
			t.Errorf("%s: got %v, %v; want %v", src, got, err, want)
		}
	}
}

// FuzzSelector compiles and matches any text: an answer within the bounds,
// never a panic.
func FuzzSelector(f *testing.F) {
	for _, s := range []string{`true`, `device.driver == "x"`, `device.capacity["gpu.example.com"].memory.isGreaterThan(quantity("1Gi"))`, `[1,2].map(x, x * 2).size() > 0`, `has(device.attributes.x)`} {
		f.Add(s)
	}
	for _, s := range hostile() {
		f.Add(s)
	}
	d := withGPUs(grid(1, 1, 1, 1, 1), 2).Devices[0]
	f.Fuzz(func(t *testing.T, src string) {
		sel, err := CompileSelector(src)
		if err != nil {
			return
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		budget := uint64(maxSelectorCost)
		ok, err := sel.match(t.Context(), &d, &budget)
		runtime.ReadMemStats(&after)
		if ok && err != nil {
			t.Error("a match with an error")
		}
		if used := after.TotalAlloc - before.TotalAlloc; used > 256<<20 {
			t.Errorf("%d MiB were allocated", used>>20)
		}
	})
}
