package optimize

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The names in the archives that go to the tool and come back; see bundle.Write.
const (
	RequestFile = "request.json"
	ReportFile  = "report.json"
	ModelDir    = "model"
	DataDir     = "calibration"
)

// WorkDir is the folder of a tool's pack where anyone may write.
const WorkDir = "/work"

// ProgressMark begins a line of the tool's log that says what it is doing.
const ProgressMark = "> "

// Method is how a model is optimised.
type Method string

// The methods. Graph leaves the numbers as they are: it stores what the engine
// otherwise does at each load, for the CPU at hand.
const (
	Graph   Method = "graph"
	Dynamic Method = "int8-dynamic" // weights; activations are quantised while the model runs
	Static  Method = "int8-static"  // weights and activations, whose ranges calibration finds
	Weights Method = "int8-weights" // weights; the engine computes with floating-point numbers
	// Quantize stores a language model's weights in fewer bits.
	Quantize Method = "quantize"
)

// Int8 reports whether the method quantises.
func (m Method) Int8() bool { return m == Dynamic || m == Static || m == Weights }

// compact reports whether a smaller result is worth it where it is no faster: its
// memory is what bounds a language model.
func (m Method) compact() bool { return m == Quantize || m == Weights }

// Measure is how the accuracy is measured.
type Measure string

// The measures. Auto takes labels where there are, top-1 where the model's one output
// looks like scores of classes, and else the difference. Of language models it takes the
// perplexity where there is a text, and else top-1: a row is a token, and its classes
// are those that may come next.
const (
	Auto       Measure = "auto"
	Labels     Measure = "labels"     // the share of rows whose highest score is that of their label
	Top1       Measure = "top-1"      // the share of rows whose highest score is that of the original's
	Difference Measure = "difference" // of the outputs from the original's, in parts of their length as a vector
	Perplexity Measure = "perplexity" // of a language model on a text
)

// Measures are those that may be asked for.
func Measures() []Measure { return []Measure{Auto, Labels, Top1, Difference, Perplexity} }

// MaxDrop is the most that the accuracy may drop where nobody says otherwise. Language
// models in few bits lose more than others, which few answers show.
func (m Measure) MaxDrop(method Method) float64 {
	switch {
	case method != Quantize:
		return 0.005
	case m == Perplexity:
		return 0.05
	}
	return 0.1
}

// Request is what the tool is asked for.
type Request struct {
	Model   string            `json:"model"` // the file below ModelDir
	Digest  string            `json:"digest"`
	Result  string            `json:"result"` // the name of the file to make
	Method  Method            `json:"method"`
	Measure Measure           `json:"measure"`
	MaxDrop *float64          `json:"maxDrop,omitempty"` // from 0 to 1; nil: as of Measure.MaxDrop
	Threads int               `json:"threads"`           // for measuring
	Force   bool              `json:"force"`             // give the result though the gate refuses it
	Options map[string]string `json:"options,omitempty"` // of the tool
}

// File names a model's file.
type File struct {
	Name      string `json:"name"`
	Digest    string `json:"digest"`
	SizeBytes int64  `json:"sizeBytes"`
}

// Report is what came out, and where the result came from: it stays beside it.
type Report struct {
	Original File   `json:"original"`
	Result   File   `json:"result"`
	Method   Method `json:"method"`
	// Tool and Pack made the result; Options are those of the tool.
	Tool        string            `json:"tool"`
	Pack        string            `json:"pack,omitempty"`
	Options     map[string]string `json:"options"`
	Calibration *Calibration      `json:"calibration,omitempty"`
	Target      Target            `json:"target"`
	Accuracy    Accuracy          `json:"accuracy"`
	Speed       Speed             `json:"speed"`
	MaxDrop     float64           `json:"maxDrop"`
	Refused     string            `json:"refused,omitempty"` // why the gate refuses the result
	Created     time.Time         `json:"created,omitzero"`
}

// Calibration is the data that was used.
type Calibration struct {
	Digest     string `json:"digest"` // of the files, as of a model's folder
	Files      int    `json:"files"`
	Calibrated int    `json:"calibrated"` // inputs that found the ranges
	HeldOut    int    `json:"heldOut"`    // inputs that measured the accuracy
}

// Target is where the result was measured.
type Target struct {
	Node     string   `json:"node,omitempty"`
	Arch     string   `json:"arch"`
	CPU      string   `json:"cpu,omitempty"`      // as /proc/cpuinfo names it
	Features []string `json:"features,omitempty"` // those that decide about options
	Threads  int      `json:"threads"`
}

// Speed is how long original and result take, the shortest of many times. A run of a
// language model writes one token.
type Speed struct {
	Inputs       int           `json:"inputs"` // over which a run is averaged
	OriginalRun  time.Duration `json:"originalRunNs"`
	ResultRun    time.Duration `json:"resultRunNs"`
	OriginalLoad time.Duration `json:"originalLoadNs,omitempty"`
	ResultLoad   time.Duration `json:"resultLoadNs,omitempty"`
	// Of a language model: what reading one token of a prompt takes.
	OriginalPrompt time.Duration `json:"originalPromptNs,omitempty"`
	ResultPrompt   time.Duration `json:"resultPromptNs,omitempty"`
}

// clearly is by which part of its time a result has to be faster, as an engine that
// takes the place of another.
const clearly = 0.1

func faster(result, original time.Duration) bool {
	return result > 0 && float64(result) <= (1-clearly)*float64(original)
}

func (s *Speed) slower() bool { return float64(s.ResultRun) > (1+clearly)*float64(s.OriginalRun) }

// Judge returns why the gate refuses the result, "" where it does not: it has to keep
// the accuracy, and to be faster by a tenth; a graph may be that in loading alone, and a
// compact result may be smaller instead and no slower.
func (r *Report) Judge() string {
	var why []string
	if drop := r.Accuracy.Drop; !(drop <= r.MaxDrop+1e-12) { // a NaN too
		why = append(why, fmt.Sprintf("%s, more than the %s that --max-drop allows", r.Accuracy.lost(), Percent(r.MaxDrop)))
	}
	s := &r.Speed
	switch {
	case faster(s.ResultRun, s.OriginalRun):
	case r.Method.compact() && float64(r.Result.SizeBytes) > (1-clearly)*float64(r.Original.SizeBytes):
		why = append(why, "it is neither faster nor smaller by a tenth")
	case r.Method.compact() && s.slower():
		why = append(why, "it is smaller, but runs slower by a tenth")
	case r.Method.compact():
	case r.Method.Int8():
		why = append(why, "it does not run faster by a tenth")
	case !faster(s.ResultLoad, s.OriginalLoad):
		why = append(why, "it neither runs nor loads faster by a tenth")
	case s.slower():
		why = append(why, "it loads faster, but runs slower by a tenth")
	}
	return strings.Join(why, ", and ")
}

// Percent writes a share for people, to a thousandth of a percent.
func Percent(share float64) string {
	text := strconv.FormatFloat(100*share, 'f', 3, 64)
	return strings.TrimSuffix(strings.TrimRight(text, "0"), ".") + " %"
}

// ParsePercent reads a share such as 0.5%, from 0 to 100 %.
func ParsePercent(text string) (float64, error) {
	number, ok := strings.CutSuffix(text, "%")
	percent, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if !ok || err != nil || !(percent >= 0 && percent <= 100) {
		return 0, fmt.Errorf("%q is not a percentage: write a number from 0 to 100 with a percent sign, such as 0.5%%", text)
	}
	return percent / 100, nil
}
