#!/usr/bin/env bash
# A Slurm of one node in a folder of its own, for as long as one job takes.
#   slurm.sh usable        says whether it can be had here, and why not
#   slurm.sh run JOBFILE   submits the job, waits for all its tasks, and ends everything it started
set -uo pipefail

usable() {
    local program
    [ "$(id -u)" -eq 0 ] || { echo "Slurm's parts are started as root, and this is not root"; return 1; }
    for program in munged mungekey slurmctld slurmd sbatch; do
        PATH="$PATH:/usr/sbin:/sbin" command -v "$program" >/dev/null ||
            { echo "$program is not installed (apt-get install slurm-wlm munge)"; return 1; }
    done
    for program in slurmctld slurmd munged; do
        pgrep -x "$program" >/dev/null && { echo "$program runs already; it is left alone"; return 1; }
    done
    return 0
}

run() {
    local job=$1 cores
    export PATH="$PATH:/usr/sbin:/sbin"
    place=$(mktemp -d) && chmod 755 "$place"
    cores=$(nproc)
    mkdir -p "$place/state" "$place/spool" "$place/munge"
    chmod 711 "$place/munge"
    pids=()
    trap 'for p in "${pids[@]}"; do kill "$p" 2>/dev/null; done; sleep 1; for p in "${pids[@]}"; do kill -9 "$p" 2>/dev/null; done; rm -rf "$place"' EXIT
    mungekey -c -k "$place/munge/key" || return 1
    munged --force --foreground --key-file="$place/munge/key" --socket="$place/munge/socket" --pid-file="$place/munge/pid" \
        --seed-file="$place/munge/seed" --log-file="$place/munge/log" >/dev/null 2>&1 &
    pids+=($!)
    cat >"$place/slurm.conf" <<CONF
ClusterName=isotherm
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$place/munge/socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
MaxArraySize=10001
SlurmctldPort=26817
SlurmdPort=26818
StateSaveLocation=$place/state
SlurmdSpoolDir=$place/spool
SlurmctldPidFile=$place/slurmctld.pid
SlurmdPidFile=$place/slurmd.pid
SlurmctldLogFile=$place/slurmctld.log
SlurmdLogFile=$place/slurmd.log
NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=$cores State=UNKNOWN
PartitionName=main Nodes=$(hostname -s) Default=YES MaxTime=INFINITE State=UP
CONF
    export SLURM_CONF="$place/slurm.conf"
    sleep 1
    slurmctld -D -f "$SLURM_CONF" >/dev/null 2>&1 &
    pids+=($!)
    slurmd -D -f "$SLURM_CONF" >/dev/null 2>&1 &
    pids+=($!)
    local i
    for i in $(seq 60); do
        sinfo -h -o %t 2>/dev/null | grep -q idle && break
        sleep 1
    done
    if ! sinfo -h -o %t 2>/dev/null | grep -q idle; then
        echo "the node did not come up:" && tail -n 5 "$place/slurmctld.log" "$place/slurmd.log" "$place/munge/log"
        return 1
    fi
    timeout 900 sbatch --wait "$job"
}

case ${1:-} in
usable) usable ;;
run) usable && run "$2" ;;
*) echo "usage: slurm.sh usable | run JOBFILE" >&2 && exit 2 ;;
esac
