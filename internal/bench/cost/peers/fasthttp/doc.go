// Command fasthttp is a bare echo server of github.com/valyala/fasthttp. It is a
// module of its own, since no program of Oscine needs that library.
package main
