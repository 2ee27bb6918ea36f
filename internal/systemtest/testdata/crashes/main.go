// Program crashes takes the place of oscined in a release that is broken.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "this daemon is broken")
	os.Exit(3)
}
