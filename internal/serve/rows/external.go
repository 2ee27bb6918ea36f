package rows

import (
	"io"
	"slices"
)

// Numbers of fields in onnx.proto through which tensors are found.
const (
	attrGraph, attrTensors, attrGraphs, attrSparse, attrSparses = 6, 10, 11, 22, 23

	functionNode, functionAttribute = 7, 11
	trainingInit, trainingAlgorithm = 1, 2
	sparseValues, sparseIndices     = 1, 2

	tensorExternal, entryKey, entryValue = 13, 1, 2
)

// Bounds of the search for data files.
const (
	maxDepth   = 64   // graphs within each other
	maxOutside = 4096 // data files of one model
)

// External lists the files, by the names in the model, that hold tensors of an
// ONNX model outside its own file. The names are the model's own word: they may
// lead anywhere. Weights inside the file are not read.
func External(r io.ReaderAt, size int64) ([]string, error) {
	s := search{}
	f := &file{r: r, size: size}
	err := s.walk(message{f, 0, size}, inModel, 0)
	slices.Sort(s.found)
	return s.found, err
}

// place is a kind of message in which tensors may be.
type place int

const (
	inModel place = iota
	inGraph
	inNode
	inAttribute
	inFunction
	inTraining
	inSparse
	inTensor
)

// within says which messages of a place are looked into.
func (p place) within(number int) (place, bool) {
	inside := map[place]map[int]place{
		inModel:     {modelGraph: inGraph, modelFunctions: inFunction, modelTraining: inTraining},
		inGraph:     {graphNode: inNode, graphInitializer: inTensor, graphSparse: inSparse},
		inNode:      {nodeAttribute: inAttribute},
		inFunction:  {functionNode: inNode, functionAttribute: inAttribute},
		inTraining:  {trainingInit: inGraph, trainingAlgorithm: inGraph},
		inSparse:    {sparseValues: inTensor, sparseIndices: inTensor},
		inAttribute: {attrTensor: inTensor, attrTensors: inTensor, attrGraph: inGraph, attrGraphs: inGraph, attrSparse: inSparse, attrSparses: inSparse},
	}
	next, ok := inside[p][number]
	return next, ok
}

type search struct{ found []string }

func (s *search) walk(m message, p place, depth int) error {
	if depth > maxDepth {
		return errWire
	}
	if p == inTensor {
		return s.tensor(m)
	}
	return m.each(func(v field) error {
		next, ok := p.within(int(v.number))
		if !ok {
			return nil
		}
		sub, err := v.embedded()
		if err != nil {
			return err
		}
		return s.walk(sub, next, depth+1)
	})
}

// tensor notes the file of a tensor whose data is outside.
func (s *search) tensor(m message) error {
	outside, name := false, ""
	err := m.each(func(v field) error {
		switch v.number {
		case tensorLocation:
			n, err := v.varint()
			outside = n == 1
			return err
		case tensorExternal:
			entry, err := v.embedded()
			if err != nil {
				return err
			}
			key, value, err := entry.pair()
			if key == "location" {
				name = value
			}
			return err
		}
		return nil
	})
	if err != nil || !outside || slices.Contains(s.found, name) {
		return err
	}
	if len(s.found) == maxOutside {
		return errWire
	}
	s.found = append(s.found, name)
	return nil
}

// pair reads a key with its value.
func (m message) pair() (key, value string, err error) {
	err = m.each(func(v field) (err error) {
		switch v.number {
		case entryKey:
			key, err = v.text()
		case entryValue:
			value, err = v.text()
		}
		return err
	})
	return key, value, err
}
