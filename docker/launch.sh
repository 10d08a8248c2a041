#!/usr/bin/env bash
# Trains under torchrun on this node's part of the devices, and ends as the run does:
#   0   training is complete
#   75  it was told to go, has saved, and wants to be started again by the same command
#   else it failed
#
#   NAME=vit-large launch --config imagenet/pretrain_large --config trainer/ddp
#
# NAME        of the run: its folder is runs/NAME
# NPROC       processes on this node (one a GPU)
# NNODES, NODE_RANK, MASTER_ADDR, MASTER_PORT for several nodes; the node's rank may be a Kubernetes index
set -euo pipefail

marker="runs/${NAME:?give the run a NAME}/REQUEUE"
rm -f "$marker" # of an earlier start: it would hide a failure of this one
python -m torch.distributed.run \
    --nnodes="${NNODES:-1}" \
    --node-rank="${NODE_RANK:-${JOB_COMPLETION_INDEX:-0}}" \
    --nproc-per-node="${NPROC:-gpu}" \
    --master-addr="${MASTER_ADDR:-127.0.0.1}" \
    --master-port="${MASTER_PORT:-29500}" \
    -m mae_lightning fit "$@" --run.name="$NAME" &
torchrun=$!

# The ranks are told, not torchrun: it would kill them 30 seconds later, and a save must fit.
trap 'pkill -USR1 -P "$torchrun" || true' TERM USR1

code=0
wait "$torchrun" || code=$?
while kill -0 "$torchrun" 2> /dev/null; do # a signal ends a wait, not what is waited for
    code=0
    wait "$torchrun" || code=$?
done
if [[ $code -ne 0 && -f $marker ]]; then
    cat "$marker"
    exit 75
fi
exit "$code"
