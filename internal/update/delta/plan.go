package delta

// Sizes to aim for: large parts compress better, small ones are resumed at a
// finer grain and leave room for the dictionary.
const (
	fullPart  = maxPart
	deltaPart = 8 << 20
)

// planned is a part that is not compressed yet.
type planned struct {
	offset, size int64
	old          []piece
}

// plan cuts content into parts and chooses the dictionary of each; old is nil
// for a full transfer.
func plan(content, old *Content) []planned {
	if old == nil {
		var parts []planned
		for at := int64(0); at < content.treeStart(); at += fullPart {
			parts = append(parts, planned{offset: at, size: min(fullPart, content.treeStart()-at)})
		}
		return parts
	}
	like := newLikeness(old)
	var parts []planned
	current := planned{}
	dictionary := int64(0)
	flush := func() {
		if current.size > 0 {
			parts = append(parts, current)
		}
		current, dictionary = planned{offset: current.offset + current.size}, 0
	}
	for _, s := range content.covering() {
		from, found := like.find(s)
		for done := int64(0); done < s.size; {
			n := min(s.size-done, deltaPart)
			var p piece
			if found {
				p = window(s, from, done, n)
			}
			if current.size > 0 && (current.size+n > deltaPart || dictionary+p[1] > maxDictionary || len(current.old) == maxPieces) {
				flush()
			}
			current.size += n
			done += n
			current.old, dictionary = addPiece(current.old, p, dictionary)
		}
	}
	flush()
	return parts
}

// window is the old bytes that n bytes at done of s are most likely made from:
// those at the same share of the file, with as much on either side as the
// dictionary allows.
func window(s, from span, done, n int64) piece {
	if from.size <= maxDictionary {
		return piece{from.offset, from.size}
	}
	middle := int64(float64(done+n/2) / float64(s.size) * float64(from.size))
	start := min(max(middle-maxDictionary/2, 0), from.size-maxDictionary)
	return piece{from.offset + start, maxDictionary}
}

// addPiece adds old bytes to a dictionary, unless they are in it: files of one
// name come from one old file.
func addPiece(pieces []piece, p piece, total int64) ([]piece, int64) {
	for _, have := range pieces {
		if p[0] >= have[0] && p[0]+p[1] <= have[0]+have[1] {
			return pieces, total
		}
	}
	if p[1] == 0 {
		return pieces, total
	}
	return append(pieces, p), total + p[1]
}
