#!/usr/bin/env bash
# Tests and measurements that need one NVIDIA GPU, in ten minutes: docs/performance.md.
#   bash benchmarks/gpu_session.sh FOLDER                # run it again for the parts that are left
#   PARTS="tests sweep report" bash benchmarks/gpu_session.sh FOLDER
#   GPU_SESSION_SMALL=1 bash benchmarks/gpu_session.sh FOLDER   # every part, tiny, also on a CPU
# Each part has a time limit and writes FOLDER/<part>.log; FOLDER/summary.txt says how they ended.
# Environment: PYTHON (python), DATA (movielens_1m where its file is there, else synthetic),
# GPU_SESSION_SECONDS (600, of all parts), and the folders TWOTOWER_DATA_DIR and TWOTOWER_CACHE_DIR.
set -u
out=$(realpath -m "${1:?usage: bash benchmarks/gpu_session.sh FOLDER}")
cd "$(dirname "$0")/.." || exit 1
mkdir -p "$out"
python=${PYTHON:-python}
deadline=$((SECONDS + ${GPU_SESSION_SECONDS:-600}))

if [[ -z ${DATA:-} ]]; then
  DATA=synthetic
  [[ -e ${TWOTOWER_DATA_DIR:-data}/ml-1m/ratings.dat ]] && DATA=movielens_1m
fi
common=(data=$DATA trainer.enable_progress_bar=false)
of_benchmark=()
of_kernels=("num_runs=[1,27]" rounds=1 steps=10)
of_step=(rounds=3)
of_run=(trainer.max_steps=1500)
of_sweep=(callbacks.diagnostics.plots=false)
recorded=true
if [[ -n ${GPU_SESSION_SMALL:-} ]]; then
  common=(data=synthetic data.reader.num_users=150 data.reader.num_items=80 data.batch_size=64
    data.reader.interactions_per_user=10 trainer.enable_progress_bar=false)
  of_benchmark=("num_runs=[1,3]" rounds=1 steps=2)
  of_kernels=("${of_benchmark[@]}")
  of_step=(rounds=1 steps=2)
  of_run=(trainer.max_steps=40)
  of_sweep+=(trainer.max_epochs=2 hydra.sweeper.params.seed="'0,1'" loss.lambda1=0.1)
  recorded=auto
fi

part() { # name, seconds that it may take, command
  local name=$1 limit=$2 started=$SECONDS left=$((deadline - SECONDS)) code
  shift 2
  [[ " ${PARTS:-$name} " == *" $name "* && ! -e $out/$name.done ]] || return 0
  ((limit > left)) && limit=$left
  if ((limit < 10)); then
    echo "$name: no time left" | tee -a "$out/summary.txt"
    return
  fi
  timeout --kill-after=10 "$limit" "$@" >"$out/$name.log" 2>&1
  code=$?
  ((code == 0)) && touch "$out/$name.done"
  echo "$name: exit status $code after $((SECONDS - started)) s" | tee -a "$out/summary.txt"
}

benchmark() { # name of the part, seconds, settings
  local name=$1 limit=$2
  shift 2
  part "$name" "$limit" "$python" src/benchmark.py "${common[@]}" output="$out/$name.json" "$@"
}

run() { # name of the part, seconds, settings
  local name=$1 limit=$2
  shift 2
  part "$name" "$limit" "$python" src/train.py experiment=dat_paper "${common[@]}" \
    "${of_run[@]}" hydra.run.dir="$out/$name" "$@"
}

part machine 30 "$python" -m torch.utils.collect_env
part tests 180 "$python" -m pytest -m gpu -vv -p no:cacheprovider
benchmark fused_dat_paper 100 benchmark=fused experiment=dat_paper "${of_benchmark[@]}"
benchmark fused_dat_movielens_1m 100 benchmark=fused experiment=dat_movielens_1m \
  "${of_benchmark[@]}"
part sweep 200 "$python" src/train.py -m experiment=dat_movielens_1m sweep=lambdas \
  loss.lambda2=0.5 hydra/launcher=fused "${common[@]}" "${of_sweep[@]}" hydra.sweep.dir="$out/sweep"
part report 40 "$python" src/report.py runs="$out/sweep"
benchmark kernels 60 benchmark=fused experiment=dat_paper kernels=true "${of_kernels[@]}"
benchmark step 80 benchmark=step experiment=dat_paper "${of_step[@]}"
run recorded 40 callbacks.speed.record=$recorded
run plain 60 callbacks.speed.record=false
