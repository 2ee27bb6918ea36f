#!/bin/sh
# A stand-in for nvidia-cuda-mps-control: it takes the options and commands that
# NVIDIA documents, answers as that of driver 555 does, and notes what it was
# told. It knows -multiuser-server.
set -e
control=$CUDA_MPS_PIPE_DIRECTORY/control
log=$CUDA_MPS_LOG_DIRECTORY/control.log
if [ "$1" = -d ]; then
	[ "$2" = -multiuser-server ] || { echo "An option is missing"; exit 1; }
	[ ! -e "$(dirname "$0")/fail-mps" ] || { echo "Cannot start"; exit 1; }
	[ ! -e "$control" ] || { echo "An instance of this daemon is already running"; exit 1; }
	echo "start $CUDA_VISIBLE_DEVICES" >>"$log"
	: >"$control"
	exit
fi
[ -e "$control" ] || { echo "Cannot find MPS control daemon process"; exit 1; }
read -r command
echo "$command" >>"$log"
case $command in
get_server_list) echo 4711 ;;
quit*) rm "$control" ;;
set_*percentage*) [ -e "$(dirname "$0")/deaf" ] && echo 100.0 || echo "${command##* }.0" ;;
set_*) ;;
*) echo "Unknown command \"$command\"" ;;
esac
