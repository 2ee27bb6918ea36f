package main

import "oscine.dev/oscine/internal/boot"

func main() { boot.Main() }
