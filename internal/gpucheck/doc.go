// Command gpucheck (make gpu-check) proves on a machine with a GPU what other tests
// can only pretend: it reads the GPU by its driver, writes its CDI specification,
// starts a hosted node, gives the GPU to engine workers in containers, compares
// their answers and times with the CPU's, and says what it could not try. It uses
// Oscine's programs as a person does, and changes no setting of the GPU.
package main
