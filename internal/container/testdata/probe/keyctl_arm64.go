package main

const sysKeyctl = 219
