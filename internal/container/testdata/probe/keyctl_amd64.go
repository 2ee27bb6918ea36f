package main

const sysKeyctl = 250
