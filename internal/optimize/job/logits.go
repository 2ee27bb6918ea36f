package job

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
)

// logits is a file in which llama-perplexity stores what a language model expects after
// each token of a text: the logarithm of the probability of each token of its
// vocabulary, in 16 bits, down to e^-16 of the likeliest. A text is read in chunks, and
// the second half of each is stored.
//
// Source: github.com/ggml-org/llama.cpp, tools/perplexity/perplexity.cpp, perplexity()
// and log_softmax().
type logits struct {
	f                   *os.File
	r                   *bufio.Reader
	tokens              []int32 // of the text, chunk after chunk
	chunk, words, count int     // tokens of a chunk, of the vocabulary, chunks
	row                 []byte
}

const logitsMagic = "_logits_"

// Bounds of the file.
const (
	maxChunk = 1 << 20
	maxWords = 1 << 24
)

var errLogits = errors.New("llama-perplexity did not write what the model expects")

// openLogits reads the head of a file.
func openLogits(file string) (*logits, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	l := &logits{f: f, r: bufio.NewReaderSize(f, 1<<20)}
	if err := l.head(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return l, nil
}

func (l *logits) head() error {
	info, err := l.f.Stat()
	if err != nil {
		return err
	}
	head := struct {
		Magic                [len(logitsMagic)]byte
		Chunk, Words, Chunks int32
	}{}
	if err := binary.Read(l.r, binary.LittleEndian, &head); err != nil {
		return fmt.Errorf("%w: %w", errLogits, err)
	}
	l.chunk, l.words, l.count = int(head.Chunk), int(head.Words), int(head.Chunks)
	if string(head.Magic[:]) != logitsMagic || l.chunk < 4 || l.chunk > maxChunk || l.words < 1 || l.words > maxWords || l.count < 1 || l.count > mostChunks {
		return errLogits
	}
	l.row = make([]byte, 8+4*((l.words+1)/2))
	if want := int64(binary.Size(head)) + 4*int64(l.chunk)*int64(l.count) + int64(l.count*l.judged())*int64(len(l.row)); info.Size() != want {
		return fmt.Errorf("%w: the file has %d bytes instead of %d: is the disk full?", errLogits, info.Size(), want)
	}
	l.tokens = make([]int32, l.chunk*l.count)
	return binary.Read(l.r, binary.LittleEndian, l.tokens)
}

// judged is how many tokens of a chunk the model was judged by.
func (l *logits) judged() int { return l.chunk - 1 - l.chunk/2 }

// next reads what is expected in one place: the likeliest token, and the logarithm of
// the probability of the one that comes.
func (l *logits) next(comes int32) (likeliest int, log float64, err error) {
	if _, err := io.ReadFull(l.r, l.row); err != nil {
		return 0, 0, fmt.Errorf("%w: %w", errLogits, err)
	}
	if comes < 0 || int(comes) >= l.words {
		return 0, 0, fmt.Errorf("%w: the text has the token %d, the model %d", errLogits, comes, l.words)
	}
	scale, least := float(l.row), float(l.row[4:])
	values := l.row[8:]
	most := uint16(0)
	for i := range l.words {
		if v := binary.LittleEndian.Uint16(values[2*i:]); v > most {
			most, likeliest = v, i
		}
	}
	return likeliest, least + scale*float64(binary.LittleEndian.Uint16(values[2*comes:])), nil
}

func float(b []byte) float64 {
	return float64(math.Float32frombits(binary.LittleEndian.Uint32(b)))
}

// expectations compares two models on one text.
type expectations struct {
	tokens           int
	original, result float64 // perplexities; a NaN where a model computes none
	sameTop          float64 // the share of tokens after which the same one is the likeliest
}

// compareLogits reads the files of two models.
func compareLogits(original, result string) (expectations, error) {
	var e expectations
	a, err := openLogits(original)
	if err != nil {
		return e, err
	}
	defer a.f.Close()
	b, err := openLogits(result)
	if err != nil {
		return e, err
	}
	defer b.f.Close()
	if a.chunk != b.chunk || a.words != b.words || a.count != b.count {
		return e, errors.New("the result reads the text as other tokens than the original")
	}
	same := 0
	for c := range a.count {
		for i := a.chunk / 2; i < a.chunk-1; i++ {
			comes := a.tokens[c*a.chunk+i+1]
			x, logX, err := a.next(comes)
			if err != nil {
				return e, err
			}
			y, logY, err := b.next(comes)
			if err != nil {
				return e, err
			}
			if x == y {
				same++
			}
			e.tokens++
			e.original, e.result = e.original-logX, e.result-logY
		}
	}
	n := float64(e.tokens)
	e.original, e.result, e.sameTop = math.Exp(e.original/n), math.Exp(e.result/n), float64(same)/n
	return e, nil
}
