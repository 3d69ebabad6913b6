"""The paper's claims on generated videos and on real recordings: docs/claims.md, its pictures, and their numbers.

python benchmarks/claims.py --quick              # seeds 0 to 2, in 50 minutes on 2 cores; goes on where it stopped
python benchmarks/claims.py --quick --minutes 50 # begins nothing new after 50 minutes
python benchmarks/claims.py                      # seeds 0 to 4
python benchmarks/claims.py --choose             # writes the recommended recipe, by validation videos; commit it
python benchmarks/claims.py --confirm            # the recommended loss on seeds 5 to 14; goes on where it stopped
python benchmarks/claims.py --pages              # only renews the page from benchmarks/results/claims.json

Test videos are looked at once benchmarks/results/claims_choice.json is committed. Results of fewer seeds, or without
few-shot matching, never replace those that are in benchmarks/results: they stay in --output_dir. Few-shot matching
reads recordings that come inside the package aeon (pip install --no-deps aeon); --without_few_shot leaves it out.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tempclr.errors import InputError
from tempclr.recipes.claims.choice import choose, read_choice, refuse_after_test, require_commit, write_choice
from tempclr.recipes.claims.collection import collect, write_claims
from tempclr.recipes.claims.confirmation import NEW_SEEDS, confirmation_jobs
from tempclr.recipes.claims.confirmation_results import collect_confirmation
from tempclr.recipes.claims.grid import OTHER_RATES, RUNS, ClaimSettings, jobs_of
from tempclr.recipes.claims.page import write_page
from tempclr.recipes.claims.queue import do_jobs
from tempclr.recipes.claims.work import Workshop

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "claims.json"
CHOICE = ROOT / "benchmarks" / "results" / "claims_choice.json"
CONFIRMATION = ROOT / "benchmarks" / "results" / "claims_confirmation.json"
PLAN = ROOT / "tempclr" / "recipes" / "claims" / "confirmation.py"
PAGE = ROOT / "docs" / "claims.md"
FEW_SHOT_SETS = ("PickupGestureWiimoteZ", "JapaneseVowels")


def recordings(name: str, *, seed: int) -> tuple[Any, Any, dict[str, Any]]:
    """Sequences of training classes and of new ones, and the encoder that benchmarks/few_shot_claims.py settled on."""
    sys.path.append(str(ROOT / "benchmarks"))
    import sensor_recordings

    settings = sensor_recordings.SETTINGS[name]
    base, novel = sensor_recordings.load(name, seed=seed)
    sizes = {"num_frames": settings["num_frames"], "hidden_size": 64, "num_hidden_layers": 6, "num_attention_heads": 4}
    return base, novel, {"encoder": sizes, "num_epochs": settings["num_epochs"], "base_way": 4}


def parse(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="seeds 0 to 2, without other rates")
    parser.add_argument("--seeds", nargs="+", type=int, help="other seeds")
    parser.add_argument("--output_dir", type=Path, default=ROOT / "runs" / "claims", help="runs/claims")
    parser.add_argument("--minutes", type=float, help="begin no further run after so many minutes")
    parser.add_argument("--num_processes", type=int, default=2, help="runs at a time, one thread each (default 2)")
    parser.add_argument("--without_few_shot", action="store_true", help="leave the recordings of aeon out")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--choose", action="store_true", help="only write the choice, from validation results")
    only.add_argument("--confirm", action="store_true", help="only hold the recommended loss against new seeds")
    only.add_argument("--pages", action="store_true", help="only renew the page")
    arguments = parser.parse_args(words)
    if arguments.confirm and arguments.quick:
        parser.error("--confirm has seeds of its own: leave --quick out")
    return arguments


def main(words: list[str] | None = None, *, settings: ClaimSettings | None = None) -> None:
    arguments = parse(words)
    settings = settings or ClaimSettings()
    if arguments.pages:
        renew_page()
        return
    if arguments.confirm:
        confirm(arguments, settings)
        return
    seeds = arguments.seeds or list(range(3 if arguments.quick else 5))
    sets = () if arguments.without_few_shot else FEW_SHOT_SETS
    if sets and find_spec("aeon") is None:
        raise InputError("few-shot matching reads data of aeon: pip install --no-deps aeon, or --without_few_shot")
    if arguments.choose:
        refuse_after_test(arguments.output_dir)
        chosen = choose(arguments.output_dir, seeds, few_shot_sets=sets)
        write_choice(CHOICE, chosen)
        print(f"{CHOICE}: {chosen['recipe']}, by {chosen['measure']}; commit it, then go on")
        return
    readers = {name: functools.partial(recordings, name) for name in sets}
    shop = Workshop(arguments.output_dir, settings, readers, CHOICE)
    test = may_test()
    runs = {name: run for name, run in RUNS.items() if name not in OTHER_RATES} if arguments.quick else RUNS
    jobs = jobs_of(seeds, few_shot_sets=sets, test=test, runs=runs)
    left = do_jobs(jobs, shop, num_processes=arguments.num_processes, minutes=arguments.minutes)
    if left:
        print(f"{left} of {len(jobs)} are left: the same command goes on")
    elif not test:
        print("validation is done: --choose writes the choice; commit it, and the same command goes on with the test")
    choice = read_choice(CHOICE) if test else None
    results = collect(arguments.output_dir, seeds, settings, few_shot_sets=sets, choice=choice)
    write_claims(arguments.output_dir / "claims.json", results)
    if test and not left:
        keep(results, arguments.output_dir)


def keep(results: dict[str, Any], output_dir: Path) -> None:
    """Renew the results and the page of the repository, or, where those there tell more, a page in ``output_dir``."""
    kept = read(RESULTS) if RESULTS.is_file() else None
    results_file, page_file = RESULTS, PAGE
    if kept is not None and tells_more(kept, results):
        print(f"{RESULTS} holds more seeds or sets and stays as it is")
        results_file, page_file = output_dir / "claims.json", output_dir / "claims.md"
    write_claims(results_file, results)
    if page_file == PAGE:
        renew_page()
    else:
        write_page(page_file, read(results_file))
    print(f"{page_file}: {len(results['test_seeds'])} seeds")


def confirm(arguments: argparse.Namespace, settings: ClaimSettings) -> None:
    """Run what is compared on new seeds, once the plan and the choice are committed; the page is renewed when all is
    done, and with fewer seeds the numbers stay in ``--output_dir``."""
    for file in (PLAN, CHOICE):
        require_commit(file)
    seeds = arguments.seeds or list(NEW_SEEDS)
    jobs = confirmation_jobs(seeds)
    shop = Workshop(arguments.output_dir, settings, {}, CHOICE)
    left = do_jobs(jobs, shop, num_processes=arguments.num_processes, minutes=arguments.minutes)
    if left:
        print(f"{left} of {len(jobs)} are left: the same command goes on")
        return
    is_whole = seeds == list(NEW_SEEDS)
    file = CONFIRMATION if is_whole else arguments.output_dir / CONFIRMATION.name
    write_claims(file, collect_confirmation(arguments.output_dir, seeds, settings))
    if is_whole:
        renew_page()
    print(f"{file}: {len(seeds)} seeds")


def renew_page() -> None:
    """The repository's page, from its results."""
    write_page(PAGE, read(RESULTS), confirmation=read(CONFIRMATION) if CONFIRMATION.is_file() else None)


def read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8"))


def tells_more(kept: dict[str, Any], results: dict[str, Any]) -> bool:
    """Whether the results that are kept have something that the others lack: a seed number or few-shot sets."""
    fewer_sets = not set(kept["few_shot"]) <= set(results["few_shot"])
    return len(kept["test_seeds"]) > len(results["test_seeds"]) or fewer_sets


def may_test() -> bool:
    """Whether the choice is committed; told where it is not."""
    try:
        require_commit(CHOICE)
    except InputError as error:
        print(f"test videos are left alone: {error}")
        return False
    return True


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from None
