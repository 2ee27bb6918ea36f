package place

import (
	"fmt"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/overloads"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/ext"
)

// Bounds on a selector. Its length and estimated cost are those of Kubernetes
// DRA (resource.k8s.io/v1); the others keep memory and time within them, since
// CEL counts the cost of a call only when the call has been made.
const (
	maxSelectorBytes  = 10 << 10
	maxSelectorNodes  = 2000 // of the syntax tree, with macros expanded
	maxSelectorDepth  = 64
	maxSelectorCost   = 1_000_000 // estimated before, and counted in one evaluation
	maxMatchingCost   = 1_000_000 // of the evaluations over all devices, or CPUs, of a machine
	maxSelectorValues = 2048      // size of any value on the way: its elements, or tens of bytes
	maxRegexpProgram  = 100       // instructions of a compiled regular expression
	interruptEvery    = 64        // turns of a loop between looks at the context
)

// What the estimate takes a device to be, as Kubernetes does: at most so many
// attributes, of at most so many bytes each.
const (
	estimatedAttributes = 32
	estimatedString     = 64
)

// selectorFunctions are what a selector may call beside the operators. The
// others of CEL's standard and string libraries are left out: they build
// strings of any length before their cost is known (replace, join, format), or
// serve times and bytes, which devices don't have.
const selectorFunctions = `has all exists exists_one map filter size contains startsWith endsWith matches
	lowerAscii upperAscii trim charAt indexOf lastIndexOf substring split
	int uint double string bool dyn type
	optional.of optional.none optional.ofNonZeroValue optMap optFlatMap or orValue hasValue value
	quantity compareTo isGreaterThan isLessThan asInteger`

func selectorEnv() (*cel.Env, error) {
	return cel.NewEnv(
		cel.ParserExpressionSizeLimit(maxSelectorBytes),
		cel.ParserRecursionLimit(maxSelectorDepth),
		cel.ExpressionNodeLimit(maxSelectorNodes),
		cel.RegexProgramSizeLimit(maxRegexpProgram),
		cel.ASTValidators(selectorValidator{}),
		cel.OptionalTypes(),
		ext.Strings(),
		quantityLibrary(),
		cel.Variable("device", cel.MapType(cel.StringType, cel.DynType)),
	)
}

// selectorValidator refuses functions that selectors have no use for, and
// regular expressions that are put together while matching.
type selectorValidator struct{}

// Name implements cel.ASTValidator.
func (selectorValidator) Name() string { return "oscine.selector" }

// Validate implements cel.ASTValidator.
func (selectorValidator) Validate(_ *cel.Env, _ cel.ValidatorConfig, a *ast.AST, issues *cel.Issues) {
	known := strings.Fields(selectorFunctions)
	ast.PreOrderVisit(a.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() != ast.CallKind || len(issues.Errors()) > 0 {
			return
		}
		call := e.AsCall()
		name, args := call.FunctionName(), call.Args()
		if operator := strings.ContainsAny(name[:1], "_!-@"); !operator && !slices.Contains(known, name) {
			issues.ReportErrorAtID(e.ID(), "selectors have no function %s", name)
		}
		if name == overloads.Matches && len(args) > 0 && args[len(args)-1].Kind() != ast.LiteralKind {
			issues.ReportErrorAtID(e.ID(), "the pattern of matches must be written out")
		}
	}))
}

// selectorProgram checks an expression against the bounds and makes it ready
// to evaluate within them.
func selectorProgram(source string) (cel.Program, error) {
	env, err := selectorEnv()
	if err != nil {
		return nil, fmt.Errorf("prepare CEL: %w", err)
	}
	checked, issues := env.Compile(source)
	if err := mistake(issues); err != nil {
		return nil, err
	}
	if t := checked.OutputType(); t != cel.BoolType && t != cel.DynType {
		return nil, fmt.Errorf("selector must be true or false for each device, but yields %s", t)
	}
	estimate, err := env.EstimateCost(checked, deviceEstimator{})
	if err != nil {
		return nil, fmt.Errorf("selector: estimate its cost: %w", err)
	}
	if estimate.Max > maxSelectorCost {
		return nil, fmt.Errorf("selector may cost more than %d steps for one device: use fewer loops within loops and shorter text", maxSelectorCost)
	}
	program, err := env.Program(checked,
		cel.EvalOptions(cel.OptOptimize, cel.OptTrackCost), // regular expressions are compiled once
		cel.CostLimit(maxSelectorCost),
		cel.CostTrackerOptions(cost.OverloadTracker(overloads.MatchesString, matchesCost), cost.OverloadTracker(overloads.Matches, matchesCost)),
		cel.MemoryLimit(maxSelectorValues),
		cel.InterruptCheckFrequency(interruptEvery),
	)
	if err != nil {
		return nil, fmt.Errorf("selector: %w", err)
	}
	return program, nil
}

// mistake words the first of the issues. It leaves out the drawing that CEL
// puts under a message, which takes longer than all the rest.
func mistake(issues *cel.Issues) error {
	found := issues.Errors()
	if len(found) == 0 {
		return nil
	}
	first, at := found[0], ""
	if l := first.Location; l != nil && l.Line() > 0 {
		at = fmt.Sprintf("%d:%d: ", l.Line(), l.Column()+1)
	}
	return fmt.Errorf("selector: %s%s", at, first.Message)
}

// matchesCost charges a regular expression for the most that one of its size
// can take: every instruction for every byte. CEL's own charge is for the
// length of the pattern, which says little of that.
func matchesCost(args []ref.Val, _ ref.Val) *uint64 {
	const share = 8 // of the instructions are looked at for a byte
	text, _ := args[0].Value().(string)
	c := (uint64(len(text)) + 1) * maxRegexpProgram / share
	return &c
}

// deviceEstimator tells the estimate of a selector's cost what CEL can't see:
// how large a device is.
type deviceEstimator struct{}

// EstimateCallCost implements cost.Estimator; nil means CEL's own models.
func (deviceEstimator) EstimateCallCost(string, string, *cost.AstNode, []cost.AstNode) *cost.CallEstimate {
	return nil
}

// EstimateSize implements cost.Estimator. What a path from the device leads to
// is a map of attributes or one attribute's text.
func (deviceEstimator) EstimateSize(n cost.AstNode) *cost.SizeEstimate {
	var size cost.SizeEstimate
	known := n.ComputedSize()
	switch {
	case len(n.Path()) == 2 || len(n.Path()) == 3: // device.attributes, and below it a domain's
		size = cost.RangedSizeEstimate(0, estimatedAttributes)
		if n.Type() == cel.StringType {
			size = cost.RangedSizeEstimate(0, estimatedString)
		}
	case len(n.Path()) > 0, n.Type() == cel.DynType && (known == nil || known.IsUnknown()):
		size = cost.RangedSizeEstimate(0, estimatedString)
	default:
		return nil
	}
	return &size
}
