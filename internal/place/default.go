package place

// NewDefault returns the scorer for a typical demand.
func NewDefault(typical []Demand, f *Fleet) Scorer {
	return NewFGD(NewFragmentation(typical, f.Models()))
}
